"""Sequence-level training: what it adds to a trained model.

Claim: a model that has learned by cross-entropy gets better at what it is measured by when whole outputs are trained on
(Shen et al. 2016, arXiv:1512.02433; Ranzato et al. 2016, arXiv:1511.06732; Rennie et al. 2017, arXiv:1612.00563;
Norouzi et al. 2016, arXiv:1609.00150). Here the reward is 1 - PER, and all continue for the same number of steps.
Command: s2s sweep run sequence_level --warm-start.run runs/trained --data.manual-dir DIR  (after s2s train
experiments/claims/sequence_level.py --data.manual-dir DIR --run runs/trained)
Hardware and time: one core of an EPYC beside other work, 1 to 4 minutes a run; 40 runs.
Expect: lower error rates than after as many more steps of cross-entropy.
Seen: 2026-11-28, five seeds, 3,748 test words, greedy search (docs/results.md has the runs): no gain. From a model with
a PER of 0.0945 and a WER of 0.386, cross-entropy goes to 0.0944 and 0.386, minimum risk to 0.0952 and 0.386, REINFORCE
to 0.0971 and 0.394, self-critical to 0.0971 and 0.394, RAML to 0.1076 and 0.421; each of the four is worse than
cross-entropy in all five seeds. The reward of the samples rises meanwhile, but greedy search gains nothing by it: the
model is nearly deterministic, and few of four samples differ. All seeds start from one trained model.
"""

import s2s_jax as s2s

STEPS = 500


def experiment() -> s2s.Experiment:
    """The model that the others continue: CMUdict, trained for 4,000 steps by cross-entropy."""
    return s2s.Experiment(
        steps=4000,
        data=s2s.DataConfig(train="tfds:cmudict_g2p"),
        tokenizer=s2s.TokenizersConfig(
            source=s2s.TokenizerConfig(type="char"), target=s2s.TokenizerConfig(type="word")
        ),
        batch=s2s.BatchConfig(size=256, buckets=2),
        model=s2s.ModelConfig(
            embedding=64,
            encoder=s2s.EncoderConfig(cell="lstm", size=64, dropout=0.1),
            attention=s2s.AttentionConfig(score="general"),
            decoder=s2s.DecoderConfig(cell="lstm", size=128, dropout=0.1),
        ),
        optimizer=s2s.OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0, ema=0.99),
        validation=s2s.ValidationConfig(every=1000, sentences=500),
        checkpoint=s2s.CheckpointConfig(every=500),
        search=s2s.SearchConfig(batch_size=256),
        evaluation=s2s.EvaluationConfig(unit="phone"),
    )


def sweep() -> s2s.Sweep:
    """All objectives, with the same steps, batches and learning rate; Holm's correction for four needs eight seeds."""
    continued = s2s.override(
        experiment(),
        *(f"steps={STEPS}", "batch.size=64", f"validation.every={STEPS}", f"checkpoint.every={STEPS}"),
        *(
            "optimizer.learning_rate=5e-5",
            "optimizer.warmup_steps=25",
            "optimizer.ema=0",
            "sequence_training.samples=4",
        ),
    )
    return s2s.Sweep(
        base=continued,
        axes={"loss.objective": ["cross-entropy", "minimum-risk", "reinforce", "self-critical", "raml"]},
        compare="loss.objective",
        baseline="cross-entropy",
        seeds=range(8),
        metrics=("per", "wer"),
        sentences=4000,
    )
