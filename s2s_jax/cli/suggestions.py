"""What was meant by a flag that does not exist: other toolkits' names for it, else the nearest spelling."""

import difflib
from collections.abc import Iterable

# the last part of a flag as other toolkits have it -> flags of ours, the first that the command has is suggested
SYNONYMS = {
    "accum_count": ("optimizer.accumulate",),
    "att_type": ("model.attention.score",),
    "attn": ("model.attention.score",),
    "batch_size": ("batch.size", "search.batch_size"),
    "beam_size": ("beam",),
    "beam_width": ("beam",),
    "clip": ("optimizer.clip_norm",),
    "clip_grad_norm": ("optimizer.clip_norm",),
    "dim": ("model.decoder.size",),
    "embedding_dim": ("model.embedding",),
    "embedding_size": ("model.embedding",),
    "eval_every": ("validation.every",),
    "eval_steps": ("validation.every",),
    "gradient_accumulation_steps": ("optimizer.accumulate",),
    "grad_clip": ("optimizer.clip_norm",),
    "hidden_dim": ("model.decoder.size",),
    "hidden_size": ("model.decoder.size",),
    "lenpen": ("search.length_penalty",),
    "lr": ("optimizer.learning_rate",),
    "lr_scheduler": ("optimizer.schedule",),
    "finetune_from_model": ("from",),
    "max_epoch": ("epochs",),
    "max_len": ("search.max_length", "data.max_length"),
    "max_len_b": ("search.max_length",),
    "max_steps": ("steps",),
    "max_tokens": ("batch.tokens",),
    "max_update": ("steps",),
    "model_dir": ("run",),
    "n_steps": ("steps",),
    "nbest": ("n_best",),
    "num_beams": ("beam",),
    "num_epochs": ("epochs",),
    "num_layers": ("model.decoder.layers",),
    "num_train_epochs": ("epochs",),
    "num_train_steps": ("steps",),
    "optim": ("optimizer.name",),
    "out_dir": ("run",),
    "output_dir": ("run", "output"),
    "rnn_size": ("model.decoder.size",),
    "rnn_type": ("model.decoder.cell",),
    "save_dir": ("run",),
    "save_every": ("checkpoint.every",),
    "save_interval": ("checkpoint.every",),
    "save_steps": ("checkpoint.every",),
    "teacher_forcing_ratio": ("scheduled_sampling.start",),
    "train_from": ("from",),
    "train_steps": ("steps",),
    "update_freq": ("optimizer.accumulate",),
    "user_dir": ("import",),
    "valid_every": ("validation.every",),
    "valid_steps": ("validation.every",),
    "vocab_size": ("tokenizer.source.size",),
    "warmup": ("optimizer.warmup_steps",),
    "warmup_steps": ("optimizer.warmup_steps",),
    "warmup_updates": ("optimizer.warmup_steps",),
    "wd": ("optimizer.weight_decay",),
}


def field_name(flag: str) -> str:
    """A flag or setting as our code writes it: no leading hyphens, underscores instead of hyphens."""
    return flag.strip().removeprefix("--").replace("-", "_")


def flag(name: str) -> str:
    """A name as help prints it: `--n-best`, `--model.attention.score`."""
    return "--" + name.replace("_", "-")


def nearest_flag(name: str, known: Iterable[str]) -> str | None:
    """The flag or setting among the known ones that a name was probably meant to be, as our code writes it."""
    known = list(known)
    last = name.split(".")[-1]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    near = near or [meant for meant in SYNONYMS.get(last, ()) if meant in known]
    same_end = [other for other in known if other.split(".")[-1] == last]
    near = near or difflib.get_close_matches(name, same_end, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        ends = {other.split(".")[-1]: other for other in known}
        near = [ends[end] for end in difflib.get_close_matches(last, ends, n=1, cutoff=0.7)]
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'train'?` for a name that is close to a known one, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
