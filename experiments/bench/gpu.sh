#!/usr/bin/env bash
# All measurements on a GPU, the most important first: `bash experiments/bench/gpu.sh OUT`.
# Needs jax and torch with GPU support, and the packages of pyproject.toml. MINUTES limits each part (default 4).
# Each part writes OUT/NAME.json and its messages to OUT/NAME.txt; a part that fails does not stop the next ones.
set -u
out=${1:?the folder to write into}
mkdir -p "$out"
failed=0

part() {
  local name=$1
  shift
  echo "$name: s2s bench $*"
  if ! timeout "$((60 * ${MINUTES:-4}))" python3 -m s2s_jax bench "$@" >"$out/$name.json" 2>"$out/$name.txt"; then
    failed=1
    echo "  failed: $(tail -n 1 "$out/$name.txt")"
  fi
  sed 's/^/  /' "$out/$name.txt"
}

for workload in W1 W4 W2 W3; do
  part "$workload-train" "$workload" --phases train --against torch --json
  part "$workload-search" "$workload" --phases greedy,beam5 --precisions bfloat16 --against torch --rounds 3 --json
done
part replicas W1 W4 --replicas 8 --json
part scores W1 --compare model.attention.score=general,dot,additive,concat --json
part sampled W1 --compare scheduled_sampling.start=1.0,0.5 --json
part profile W1 --profile "$out/profiling.md"
exit "$failed"
