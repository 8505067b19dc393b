"""Checks of an experiment before any data is read: what cannot be combined, and whether its step can be traced."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.config import Experiment
from s2s_jax.evaluate.metrics import METRICS, check_metric
from s2s_jax.model.decoder.architectures import ARCHITECTURES
from s2s_jax.model.seq2seq import build
from s2s_jax.run.model import copy_slots
from s2s_jax.run.state import abstract_state
from s2s_jax.run.step import training_step
from s2s_jax.run.validator import validation_search
from s2s_jax.shapes import Batch
from s2s_jax.text.copy_vocabulary import unequal_types
from s2s_jax.text.tokenizers import FeatureTokenizerConfig
from s2s_jax.training import distributed
from s2s_jax.training.objectives import OBJECTIVES, SequenceLevel
from s2s_jax.training.optimizer import check_patterns
from s2s_jax.training.scheduled_sampling import SOFT_PREDICTIONS, ScheduledSamplingConfig
from s2s_jax.training.sequence_level.config import SequenceTraining
from s2s_jax.training.sequence_level.rewards import REWARDS
from s2s_jax.training.step import TrainState


def check_experiment(experiment: Experiment) -> None:
    """Refuse settings of different groups that cannot be combined; all of them are listed.

    Raises:
        ValueError: naming the settings and what to change.
    """
    vocabularies = (8,) * len(experiment.data.features)
    model = build(experiment.model, source_vocabulary=8, target_vocabulary=8, feature_vocabularies=vocabularies)
    if experiment.optimizer.freeze or experiment.optimizer.multipliers:
        check_patterns(experiment.optimizer, jax.eval_shape(model.init, jax.random.key(0)))
    if problems := list(_problems(experiment)):
        raise ValueError(" ".join(problems))


def check_trainable(experiment: Experiment) -> TrainState:
    """Refuse what cannot be trained: the training step is traced, on shapes alone.

    Returns:
        the shapes of the run's state, for vocabularies of 100 tokens.

    Raises:
        ValueError: settings that cannot be combined.
    """
    check_experiment(experiment)
    features = (100,) * len(experiment.data.features)
    model = build(experiment.model, source_vocabulary=100, target_vocabulary=100, feature_vocabularies=features)
    state = abstract_state(model, experiment.optimizer, steps=experiment.steps)
    lines = jax.ShapeDtypeStruct((2, 5), jnp.int32)
    links = jax.ShapeDtypeStruct((2, 5, 5), jnp.bool_) if experiment.loss.guided else ()
    step = training_step(
        model,
        experiment.loss,
        experiment.scheduled_sampling,
        experiment.optimizer,
        steps=experiment.steps,
        sequence=SequenceTraining(config=experiment.sequence_training, vocabulary=100, text_reward=_no_reward),
    )
    jax.eval_shape(step, state, Batch(lines, lines, links, features=(lines,) * len(features)))  # type: ignore[arg-type]
    return state


def _no_reward(candidates: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.zeros(len(candidates))


def _check_validation_metric(experiment: Experiment) -> None:
    """Refuse a metric that a validation during training cannot compute or that cannot choose a checkpoint."""
    metric, inputs = experiment.validation.metric, {"nats", "tokens", "correct"}
    if experiment.model.attention.attends:
        inputs |= {"link_counts"}  # where the data has gold alignments
    if experiment.validation.sentences:
        inputs |= {"texts", "references"} | ({"alignments"} if "link_counts" in inputs else set())
    elif "texts" in METRICS[metric].needs:
        raise ValueError(f"validation.metric={metric} needs translations; set validation.sentences above 0.")
    check_metric("validation.metric", metric, inputs=inputs, unit=experiment.evaluation.unit)
    if METRICS[metric].higher_is_better is None:
        raise ValueError(f"validation.metric={metric} has no better and worse values; choose another metric.")


def _feature_problems(experiment: Experiment) -> Iterator[str]:
    """A residual beside features that widen the embeddings; settings of tokenizers that features do not have."""
    model = experiment.model
    if not experiment.data.features:
        return
    if model.builder == "seq2seq" and model.encoder.residual_from == 1 and model.features.combination == "concatenate":
        yield (
            "model.encoder.residual_from=1 adds the embeddings to the output of layer 1, and model.features.combination"
            "=concatenate makes them wider; set model.encoder.residual_from=0, or model.features.combination=sum."
        )
    if model.features.encoder == "shared" and experiment.tokenizer.features != FeatureTokenizerConfig():
        yield (
            "tokenizer.features has no effect with model.features.encoder=shared, by which features have the source's "
            "tokenizer; leave its settings out."
        )


def _problems(experiment: Experiment) -> Iterator[str]:
    try:
        experiment.evaluation.check_installed()
        _check_validation_metric(experiment)
        validation_search(experiment)
    except ValueError as error:
        yield str(error)
    yield from _feature_problems(experiment)
    terms, copy, attention = experiment.loss.terms, experiment.model.decoder.copy, experiment.model.attention
    if terms and not attention.attends:
        weight = getattr(experiment.loss, terms[0])
        yield (
            f"loss.{terms[0]}={weight} is a term on the alignment, and model.attention.score={attention.score} has "
            "none; choose "
            f"another model.attention.score, or set loss.{terms[0]}=0."
        )
    if (output := experiment.model.decoder.output) != "softmax":
        defaults = {"objective": "cross-entropy", "label_smoothing": 0.0}
        for name, default in defaults.items():
            if (value := getattr(experiment.loss, name)) != default:
                yield (
                    f"model.decoder.output={output} is trained with the loss that belongs to it, for which "
                    f"loss.{name}={value} is not defined; set loss.{name}={default}, or model.decoder.output=softmax."
                )
    if experiment.loss.diagonal and experiment.tokenizer.reverse_target:
        yield (
            f"loss.diagonal={experiment.loss.diagonal} wants source and target in one order, and "
            "tokenizer.reverse_target=true reverses the target; set one of them to its default."
        )
    sampling = experiment.scheduled_sampling
    if sampling.prediction in SOFT_PREDICTIONS and copy != "none" and not sampling.is_teacher_forcing:
        yield (
            f"scheduled_sampling.prediction={sampling.prediction} feeds weights over the vocabulary, and "
            f"model.decoder.copy={copy} needs tokens; set scheduled_sampling.prediction=argmax or sample."
        )
    yield from _hidden_word_problems(experiment)
    yield from _sequence_problems(experiment)
    source, target = experiment.tokenizer.source, experiment.tokenizer.target
    if experiment.warm_start.takes_tokenizers:
        files = {side: getattr(experiment.tokenizer, side).file for side in ("source", "target", "features")}
        for side, file in files.items():
            if file:
                yield (
                    f"tokenizer.{side}.file={file} and the tokenizers of warm_start.run={experiment.warm_start.run} "
                    "cannot both be used; set --warm-start.tokenizers false, or leave "
                    f"tokenizer.{side}.file empty."
                )
    elif copy_slots(experiment.model) and source.type != target.type:
        yield unequal_types(source.type, target.type)


def _hidden_word_problems(experiment: Experiment) -> Iterator[str]:
    """Hidden words in the target where the decoder reads another target, or takes what it reads for observed."""
    if not (rate := experiment.tokenizer.target.word_dropout):
        return
    objective, architecture = experiment.loss.objective, experiment.model.decoder.architecture
    found = {
        f"loss.objective={objective}": isinstance(OBJECTIVES[objective], SequenceLevel),
        f"model.decoder.architecture={architecture}": ARCHITECTURES[architecture].first_order,
    }
    for setting, reads_truth in found.items():
        if reads_truth:
            yield (
                f"tokenizer.target.word_dropout={rate} hides words from a decoder that reads the true target, and "
                f"{setting} needs them; set tokenizer.target.word_dropout=0."
            )


def _without_cross_entropy(experiment: Experiment) -> Iterator[str]:
    """What is a part of cross-entropy, where that has no weight at any step."""
    if experiment.sequence_training.has_cross_entropy:
        return
    parts = [(f"loss.{name}", getattr(experiment.loss, name), "0") for name in experiment.loss.terms]
    sampling = experiment.scheduled_sampling
    if not sampling.is_teacher_forcing:
        name = "start" if sampling.schedule == "constant" else "schedule"
        default = getattr(ScheduledSamplingConfig(), name)
        parts.append((f"scheduled_sampling.{name}", getattr(sampling, name), default))
    for setting, value, default in parts:
        yield (
            f"{setting}={value} is a part of cross-entropy, which has no weight beside loss.objective="
            f"{experiment.loss.objective}; set {setting}={default}, or sequence_training.start above 0."
        )


def smoothing_warning(experiment: Experiment) -> str | None:
    """A warning where label smoothing, which many experiments have, is a part of a loss without weight; else None."""
    loss, mixed = experiment.loss, experiment.sequence_training.has_cross_entropy
    if not loss.label_smoothing or mixed or not isinstance(OBJECTIVES[loss.objective], SequenceLevel):
        return None
    return (
        f"loss.label_smoothing={loss.label_smoothing} has no effect: cross-entropy has no weight beside loss.objective="
        f"{loss.objective}; give it one with --sequence-training.start."
    )


def _sequence_problems(experiment: Experiment) -> Iterator[str]:
    """What a sequence-level objective cannot be combined with."""
    objective, config = experiment.loss.objective, experiment.sequence_training
    if not isinstance(OBJECTIVES[objective], SequenceLevel):
        return
    if objective in ("reinforce", "self-critical", "raml") and config.candidates == "beam":
        why = "whose candidates are edited targets" if objective == "raml" else "whose gradient is right for samples"
        yield (
            f"sequence_training.candidates=beam is for loss.objective=minimum-risk, got {objective}, {why} alone; set "
            "sequence_training.candidates=sample."
        )
    if objective in ("reinforce", "self-critical", "raml") and config.reference:
        yield (
            f"sequence_training.reference=true is for loss.objective=minimum-risk, got {objective}, which compares no "
            "candidates with the target; set sequence_training.reference=false."
        )
    yield from _without_cross_entropy(experiment)
    if objective == "reinforce" and config.baseline == "leave-one-out" and config.samples == 1:
        yield (
            "sequence_training.baseline=leave-one-out needs other samples of the sentence, got "
            "sequence_training.samples=1; set sequence_training.samples=2 or more, or sequence_training.baseline=batch."
        )
    if objective == "minimum-risk" and config.samples + config.reference == 1:
        yield (
            "loss.objective=minimum-risk compares candidates, got sequence_training.samples=1; set "
            "sequence_training.samples=2 or more."
        )
    if not config.of_text:
        return
    setting = "sequence_training.reward=text"
    try:
        check_metric(setting, config.of_text, inputs=("texts", "references"), unit=experiment.evaluation.unit)
    except ValueError as error:
        yield str(error).replace("text=", "text:", 1)
    if METRICS[config.of_text].higher_is_better is None:
        yield f"sequence_training.reward={config.reward} has no better and worse values; choose another metric."
    if copy_slots(experiment.model):
        yield (
            f"sequence_training.reward={config.reward} reads text, and model.decoder.copy="
            f"{experiment.model.decoder.copy} writes words that the compiled step knows by number alone; set "
            f"sequence_training.reward to one of {', '.join(REWARDS)}."
        )
    if distributed.is_shared():
        yield (
            f"sequence_training.reward={config.reward} is computed by one process, and several share this training; "
            f"set sequence_training.reward to one of {', '.join(REWARDS)}."
        )
