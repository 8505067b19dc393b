"""Sequence-level training: what it adds to a trained model.

Claim: a model that has learned by cross-entropy gets better at what it is measured by when whole outputs are trained on
(Shen et al. 2016, arXiv:1512.02433; Ranzato et al. 2016, arXiv:1511.06732; Rennie et al. 2017, arXiv:1612.00563;
Norouzi et al. 2016, arXiv:1609.00150). Here the reward is 1 - PER, and all continue for the same number of steps.
Command: s2s sweep run sequence_level --warm-start.run runs/trained --data.manual-dir DIR  (after s2s train
experiments/claims/sequence_level.py --data.manual-dir DIR --run runs/trained)
Hardware and time: 2 CPU cores, 90 s for a run of cross-entropy, 176 s minimum risk, 232 s REINFORCE; 40 runs.
Expect: lower error rates than after as many more steps of cross-entropy.
Seen: 2026-11-28, one seed, 3,748 test words, greedy search: no gain. The trained model has a PER of 0.0945 and a WER of
0.386. After 500 more steps at this learning rate cross-entropy has 0.0945 and 0.386, minimum risk 0.0951 and 0.390,
self-critical 0.0972 and 0.396; at 3e-4 cross-entropy 0.0950 and 0.389, minimum risk 0.0956 and 0.394, REINFORCE 0.0988
and 0.405, although the mean reward of its samples rises from 0.863 to 0.88: the samples get better, the greedy output
does not. One seed does not separate the smaller differences from noise (a standard error of a WER is 0.008).
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
