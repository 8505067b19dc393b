#!/usr/bin/env bash
# All that is to be measured on a GPU, the weightiest first: `bash experiments/bench/gpu.sh OUT`.
# Needs jax with its GPU and torch with its own, and the packages of pyproject.toml; MINUTES bounds each part (4).
# Each part leaves OUT/NAME.json, and OUT/NAME.txt with what it said; a part that fails does not stop the others.
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

for work in W1 W4 W2 W3; do
  part "$work-train" "$work" --phases train --against torch --json
  part "$work-search" "$work" --phases greedy,beam5 --precisions bfloat16 --against torch --rounds 3 --json
done
part replicas W1 W4 --replicas 8 --json
part scores W1 --vary model.attention.score=general,dot,additive,concat --json
part sampled W1 --vary scheduled_sampling.start=1.0,0.5 --json
part where W1 --where "$out/profiling.md"
exit "$failed"
