"""Every setting can be overridden, typos are answered, and an experiment survives JSON."""

import dataclasses
import json
import typing

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s2s_jax import config
from s2s_jax.config import (
    Experiment,
    differences,
    from_json,
    learned_settings,
    override,
    settings,
    to_json,
    with_settings,
)
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.run.check import check_experiment
from s2s_jax.text.sources import DataConfig
from s2s_jax.training.objectives import OBJECTIVES, ObjectiveName
from s2s_jax.training.optimizer import OPTIMIZERS, SCHEDULES, OptimizerName, ScheduleName, learning_rate
from s2s_jax.training.stop_policy import MetricName
from s2s_jax.validation import at_least


def test_every_setting_has_a_meaning_and_can_be_set_to_its_own_value():
    experiment = tiny.experiment()
    for setting in settings(experiment):
        assert setting.description.endswith("."), setting.name
        text = setting.value if isinstance(setting.value, str) else json.dumps(setting.value)
        assert override(experiment, f"{setting.name}={text}") == experiment, setting.name


@pytest.mark.parametrize("number", ["-Infinity", "1e999", "NaN"])
def test_no_setting_may_be_infinite_or_nan(number):
    experiment = tiny.experiment()
    names = [setting.name for setting in settings(experiment) if setting.type is float]
    assert "model.attention.alpha" in names
    for name in names:
        with pytest.raises(ValueError, match=rf"^{name} must be a finite number, got -?(inf|nan)$"):
            with_settings(experiment, {name: json.loads(number)})


def test_a_bound_of_one_is_called_positive_for_whole_numbers_alone():
    with pytest.raises(ValueError, match="x must be at least 1, got 0.5"):
        at_least("x", 0.5, 1)
    with pytest.raises(ValueError, match="x must be positive, got 0"):
        at_least("x", 0, 1)


def test_settings_that_only_go_together_are_changed_together():
    changes = ("model.attention.constraint=mocha", "model.attention.normalizer=sigmoid")
    for order in (changes, changes[::-1]):
        assert override(Experiment(), *order).model.attention.constraint == "mocha"
    with pytest.raises(ValueError, match="model.attention.constraint=mocha reads each weight"):
        override(Experiment(), changes[0])


def test_an_override_changes_one_setting_and_nothing_else():
    before = tiny.experiment()
    after = override(before, "model.attention.score=dot")
    assert after.model.attention.score == "dot"
    assert dataclasses.replace(after, model=before.model) == before
    assert override(before, "data.manual-dir=/x").data.manual_dir == "/x"
    assert override(before, "optimizer.learning_rate=3e-4").optimizer.learning_rate == 3e-4
    assert override(before, "steps=1_000").steps == 1000
    assert override(before, "steps=1e3").steps == 1000
    assert override(before, "device.graphs=True").device.graphs is True
    for listed in ("[2, 7]", "2,7", " 2, 7 "):
        assert override(before, f"data.lengths={listed}").data.lengths == (2, 7)
    for listed in ("wandb,mlflow", '["wandb", "mlflow"]', " wandb, mlflow,"):
        assert override(before, f"record.trackers={listed}").record.trackers == ("wandb", "mlflow")
    assert override(before, "record.trackers=").record.trackers == ()
    points = override(before, "scheduled_sampling.points=[]").scheduled_sampling
    assert points.points == ()


def test_steps_and_epochs_are_one_choice():
    """Whoever changes steps alone leaves the epochs of the experiment behind."""
    of_epochs = override(Experiment(), "epochs=10")
    assert override(of_epochs, "steps=500") == override(Experiment(), "steps=500")
    assert override(of_epochs, "seed=1").epochs == 10
    with pytest.raises(ValueError, match="^steps=5 and epochs=2 both say how long to train; leave one out.$"):
        override(Experiment(), "steps=5", "epochs=2")
    plateau = override(Experiment(), "optimizer.schedule=plateau")
    other = override(plateau, "validation.every=7", "search.beam=3", "steps=5")
    assert set(differences(*map(learned_settings, (plateau, other)))) == {"validation.every", "search.beam"}
    assert set(differences(*map(learned_settings, (plateau, Experiment())))) == {"optimizer.schedule"}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.attention.scor=dot", "no setting 'model.attention.scor'; did you mean 'model.attention.score'?"),
        ("attention.score=dot", "no setting 'attention.score'; did you mean 'model.attention.score'?"),
        ("learning-rate=1", "no setting 'learning_rate'; did you mean 'optimizer.learning_rate'?"),
        ("model.attention=dot", "no setting 'model.attention'; it is a group: model.attention.score,"),
        ("xyzzy=1", "no setting 'xyzzy'; s2s train EXPERIMENT --help lists them all"),
        ("steps=many", "steps must be a whole number, got 'many'"),
        ("steps=1.5", "steps must be a whole number, got 1.5"),
        ("steps=true", "steps must be a whole number, got True"),
        ("steps", "'steps' has no value; write steps=VALUE."),
        ("data.lengths=3", "data.lengths must be a list, got 3"),
        ("data.lengths=3,x", "data.lengths must be a list, got '3,x'"),
        ("data.lengths=3,4.5", "data.lengths must be a whole number, got 4.5"),
        ("device.graphs=maybe", "device.graphs must be true or false, got 'maybe'"),
        ("model.encoder.size=-8", "model.encoder.size must be positive, got -8"),
        ("model.attention.score=dto", "did you mean 'dot'?"),
        ("steps=0", "steps must be positive, got 0"),
        ("seed=" + "1" * 30, "seed must be at most 9223372036854775807 in magnitude, got a larger number"),
        ("seed=1e30", "seed must be at most 9223372036854775807"),
        ("seed=" + "1" * 400, "seed must be at most 9223372036854775807"),
        ("seed=" + "1" * 5000, "seed must be a whole number, got '111"),
        ("optimizer.learning_rate=" + "1" * 400, "optimizer.learning_rate must be at most 1.79"),
    ],
)
def test_mistakes_get_one_clear_line(assignment, message):
    with pytest.raises(ValueError) as raised:
        override(tiny.experiment(), assignment)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_experiment_survives_json():
    experiment = tiny.experiment("scheduled_sampling.schedule=linear", "data.lengths=[1, 4]")
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment


def test_json_with_an_unknown_setting_is_refused():
    record = to_json(tiny.experiment())
    record["model"]["atention"] = record["model"].pop("attention")
    with pytest.raises(ValueError, match="no setting 'model.atention'; did you mean 'model.attention'"):
        from_json(record)
    with pytest.raises(ValueError, match="steps must be a whole number, got 'x'"):
        from_json({"steps": "x"})


@hypothesis_settings(deadline=None)
@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text):
    try:
        override(Experiment(), text)
    except ValueError as error:
        assert "\n" not in str(error) or "\n" in text
    else:
        assert "=" in text


def test_what_may_change_under_a_run_is_no_difference():
    before = learned_settings(tiny.experiment())
    harmless = ("record.log_every=1", "device.count=2", "search.beam=5", "batch.prefetch=9", "data.test=other.tsv")
    validation = ("validation.every=7", "validation.sentences=3", "validation.patience=2")
    assert differences(before, learned_settings(tiny.experiment(*harmless, *validation))) == {}
    larger = learned_settings(tiny.experiment("model.encoder.size=17"))
    assert differences(before, larger) == {"model.encoder.size": (16, 17)}
    del larger["model.encoder.size"]  # a record of a version that had no such setting
    assert differences(larger, before) == {"model.encoder.size": (256, 16)}


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_steps_are_learned_settings_where_the_schedule_reads_them(schedule):
    changes = (f"optimizer.schedule={schedule}", "optimizer.final_fraction=0.1", "optimizer.warmup_steps=0")
    short, long = (tiny.experiment(*changes, f"steps={steps}") for steps in (100, 200))
    config = short.optimizer
    rates = [[float(learning_rate(config, steps)(step)) for step in range(0, 100, 9)] for steps in (100, 200)]
    changed = differences(learned_settings(short), learned_settings(long))
    assert changed == ({} if rates[0] == rates[1] else {"steps": (100, 200)})


@pytest.mark.parametrize(
    ("names", "table"),
    [(OptimizerName, OPTIMIZERS), (ScheduleName, SCHEDULES), (ObjectiveName, OBJECTIVES), (MetricName, METRICS)],
)
def test_the_names_that_editors_complete_are_those_of_the_tables(names, table):
    assert set(typing.get_args(names)) == set(table)


def test_a_metric_that_validation_cannot_compute_is_refused():
    for change, message in (
        ("validation.metric=bluu", "validation.metric must be one of .*; did you mean 'bleu'"),
        ("validation.metric=per", "validation.metric=per needs evaluation.unit=phone, got evaluation.unit=word"),
        ("validation.metric=exposure_gap", "validation.metric=exposure_gap needs free-running decoding"),
        ("validation.metric=attention_entropy", "has no better and worse values; choose another metric"),
    ):
        with pytest.raises(ValueError, match=message):
            check_experiment(tiny.experiment(change))
    with pytest.raises(ValueError, match="validation.metric=chrf needs translations; set validation.sentences above 0"):
        check_experiment(tiny.experiment("validation.metric=chrf", "validation.sentences=0"))
    with pytest.raises(ValueError, match="validation.metric=aer needs a model with attention"):
        check_experiment(tiny.experiment("validation.metric=aer", "model.attention.score=none"))


def test_the_unit_of_an_evaluation_need_not_suit_the_validation_metric():
    """`s2s evaluate RUN --evaluation.unit word` of a run that was validated by PER."""
    trained = tiny.experiment("validation.metric=per", "evaluation.unit=phone")
    assert override(trained, "evaluation.unit=word").evaluation.unit == "word"


def test_a_name_that_a_user_adds_to_a_table_is_accepted(monkeypatch):
    with pytest.raises(ValueError, match="optimizer.name must be one of .*, got 'mine'"):
        tiny.experiment("optimizer.name=mine")
    monkeypatch.setitem(OPTIMIZERS, "mine", OPTIMIZERS["adam"])
    assert tiny.experiment("optimizer.name=mine").optimizer.name == "mine"


def test_there_is_one_config_class_per_field():
    """A class that two fields share would make their help and their errors ambiguous."""
    kinds = [type(getattr(config.Experiment(), field.name)) for field in dataclasses.fields(config.Experiment)]
    nested = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    assert len(nested) == len(set(nested))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Experiment(steps="10"), "steps must be a whole number, got '10'"),  # type: ignore[arg-type]
        (lambda: tiny.DecoderConfig(size=8.5), "model.decoder.size must be a whole number, got 8.5"),  # type: ignore
        (lambda: tiny.OptimizerConfig(learning_rate="fast"), "optimizer.learning_rate must be a number, got 'fast'"),
        (lambda: Experiment(data="task:copy"), "data must be a DataConfig, got 'task:copy'"),
        (lambda: dataclasses.replace(tiny.experiment(), imports="a.py"), "imports must be a list, got 'a.py'"),
    ],
)
def test_a_config_written_in_python_is_checked_like_one_from_flags(make, message):
    with pytest.raises(ValueError) as raised:
        make()
    assert str(raised.value) == message


def test_numbers_of_other_types_are_converted():
    experiment = Experiment(
        steps=np.int64(7),
        data=DataConfig(lengths=[1, 4]),  # type: ignore[arg-type]
        optimizer=tiny.OptimizerConfig(learning_rate=1),
    )
    assert experiment == Experiment(
        steps=7, data=DataConfig(lengths=(1, 4)), optimizer=tiny.OptimizerConfig(learning_rate=1.0)
    )
    assert type(experiment.steps) is int
    assert type(experiment.optimizer.learning_rate) is float
