"""The settings of the decoder."""

import dataclasses
from typing import Literal

from s2s_jax.model.bridge import BRIDGES, BridgeName
from s2s_jax.model.cells import CELLS, CellName, check_transitions
from s2s_jax.model.copy_mechanism import COPYING, CopyName
from s2s_jax.model.decoder.architectures import ARCHITECTURES
from s2s_jax.model.output_distribution import SPARSE_OUTPUTS, OutputName
from s2s_jax.model.readout import GATES, READOUTS, ContextGateName, Readout, ReadoutName
from s2s_jax.validation import at_least, check_fields, fraction, one_of

ArchitectureName = Literal[
    "luong",
    "bahdanau",
    "bahdanau-new-state",
    "conditional",
    "gnmt",
    "hard",
    "hard-first-order",
    "hard-monotonic",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The recurrent network that writes the target."""

    cell: CellName = "lstm"
    """Recurrent cell."""
    size: int = 512
    """Width of the state of one layer."""
    layers: int = 1
    """Stacked layers."""
    transitions: int = 1
    """Cells that the state of a layer passes through at each token; those after the first have no input."""
    architecture: ArchitectureName = "luong"
    """Order of cells and attention. luong: the new state queries, an attentional vector predicts; bahdanau: the
    previous state queries and, with a deep output, predicts, the context enters the lowest cell; bahdanau-new-state:
    the same, but the new state predicts; conditional: the state after the token queries, the context enters a second
    cell (Nematus, Sennrich et al. 2017, arXiv:1703.04357, section 2); gnmt: the previous state of the lowest layer
    queries, the context enters all layers, the new top state predicts (Wu et al. 2016, arXiv:1609.08144). hard,
    hard-first-order, hard-monotonic: exact hard attention, as luong without input feeding, but one source token
    predicts, and which one is summed out; it depends on nothing, on the one before, or is never before that (Wu et al.
    2018, arXiv:1808.10024; Wu & Cotterell 2019, arXiv:1905.06319)."""
    context_gate: ContextGateName = "none"
    """Context gate between source and target in the attentional vector, of luong and conditional. Tu et al. 2017,
    arXiv:1608.06043."""
    input_feeding: bool = True
    """luong only: the attentional vector enters the lowest cell at the next step. Luong et al. 2015, section 3.3."""
    bridge: BridgeName = "projected"
    """What the first state is made of: zero, learned (the same for every source), last, projected (from the last
    state) or mean (of all outputs)."""
    readout_type: ReadoutName = "architecture"
    """Vector that predicts the token. architecture: that of model.decoder.architecture; attentional: tanh(W [context;
    state]), as luong; attentional-token: the same with the last token, as conditional; deep: maxout of state, token and
    context, as bahdanau; state: the state alone, as gnmt."""
    readout: int = 0
    """Width of the vector that predicts the token; 0 for model.decoder.size, or for the embedding's if they are tied.
    Where the state alone predicts, as in gnmt, there is no such vector."""
    self_attention_window: int = 0
    """Number of the decoder's last states that it attends to; their context is concatenated to the state that predicts.
    0 for none. Paulus et al. 2018, arXiv:1705.04304, section 2.2 (intra-decoder attention), there over all earlier
    states."""
    tied_embeddings: bool = False
    """Predict with the target embeddings instead of a separate matrix. Press & Wolf 2017, arXiv:1608.05859."""
    output: OutputName = "softmax"
    """Distribution over the vocabulary. entmax-1.5 and sparsemax give most tokens a probability of exactly 0, and are
    trained with their own loss, which takes the place of cross-entropy. Peters et al. 2019, arXiv:1905.05702."""
    residual_from: int = 0
    """First layer (counted from 1) whose input is added to its output; 0 for none. Where a layer's previous state
    queries or predicts (bahdanau, bahdanau-new-state, gnmt), its previous output takes that place."""
    dropout: float = 0.0
    """Fraction of a layer's inputs and of the readout dropped, the same ones at every step of a sentence."""
    recurrent_dropout: float = 0.0
    """Fraction of a state dropped before its matrix product, the same ones at every step of a sentence."""
    zoneout: float = 0.0
    """Fraction of a layer's output that stays what it was, others at every token. Krueger et al. 2017,
    arXiv:1606.01305."""
    cell_zoneout: float = 0.0
    """The same of the memory cell of lstm, layer-norm-lstm and sru."""
    copy: CopyName = "none"
    """How words of the source that the target vocabulary lacks are produced: none, pointer (See et al. 2017) or
    copynet (Gu et al. 2016). For tokenizer.SIDE.type word or char: bpe and unigram know every word, so that only
    tokens that both sides know are copied."""
    copy_slots: int = 16
    """Maximum number of distinct words per source sentence that its vocabulary lacks and that can be copied."""

    def __post_init__(self):
        check_fields(self, "model.decoder")
        one_of("model.decoder.cell", self.cell, CELLS)
        one_of("model.decoder.architecture", self.architecture, ARCHITECTURES)
        one_of("model.decoder.bridge", self.bridge, BRIDGES)
        one_of("model.decoder.copy", self.copy, ("none", *COPYING))
        one_of("model.decoder.context_gate", self.context_gate, ("none", *GATES))
        one_of("model.decoder.readout_type", self.readout_type, ("architecture", *READOUTS))
        one_of("model.decoder.output", self.output, ("softmax", *SPARSE_OUTPUTS))
        at_least("model.decoder.size", self.size, 1)
        at_least("model.decoder.layers", self.layers, 1)
        check_transitions("model.decoder", self.cell, self.transitions)
        at_least("model.decoder.readout", self.readout, 0)
        at_least("model.decoder.self_attention_window", self.self_attention_window, 0)
        at_least("model.decoder.residual_from", self.residual_from, 0)
        at_least("model.decoder.copy_slots", self.copy_slots, 0)
        for name in ("dropout", "recurrent_dropout", "zoneout", "cell_zoneout"):
            fraction(f"model.decoder.{name}", getattr(self, name))

    @property
    def feeds_back(self) -> bool:
        """Whether the readout vector enters the lowest cell at the next step."""
        return self.input_feeding and ARCHITECTURES[self.architecture].has_input_feeding

    @property
    def readout_kind(self) -> type[Readout]:
        """The class of the vector that predicts the token."""
        if self.context_gate != "none":
            return GATES[self.context_gate]
        return READOUTS.get(self.readout_type, ARCHITECTURES[self.architecture].readout)

    def readout_width(self, embedding: int) -> int:
        """Width of the vector that predicts the token, for target embeddings of a width."""
        if not self.readout_kind.has_width:
            return self.state_width
        return self.readout or (embedding if self.tied_embeddings else self.size)

    @property
    def state_width(self) -> int:
        """Width of what predicts from the target side: the state and, with a window, the context of the last states."""
        return self.size * (1 + bool(self.self_attention_window))
