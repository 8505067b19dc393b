"""What did the user ask for? Commands and their options; every other `--name value` overrides a setting."""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import NoReturn

import s2s_jax

COMMANDS = {
    "train": "train an experiment, or go on with a run that was stopped",
    "translate": "translate lines from stdin or a file",
    "evaluate": "measure a run on a split of its data",
    "score": "log-probability of given pairs",
    "export": "write a run as programs that need no flax, and its parameters as safetensors",
    "align": "draw where the decoder looks",
    "info": "what a run is",
    "sweep": "plan, run, watch, report or verify a grid of experiments",
    "attention": "the choices of attention: formula, paper, and what goes with what",
    "bench": "measure speed against the machine's limit, and against PyTorch",
}
EXPORTED = ", or of an exported one"
OVERRIDES = "any setting may be overridden: --model.attention.score dot; `s2s train EXPERIMENT --help` lists them all"


class UsageError(ValueError):
    """The command line does not make sense."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


@dataclasses.dataclass(frozen=True)
class Given:
    """A parsed command line."""

    command: str
    options: argparse.Namespace
    overrides: list[str]


def parse(arguments: Sequence[str]) -> Given:
    """The command, its options, and the overrides `name=value`.

    Raises:
        UsageError: something is missing or unknown.
    """
    parser = make_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no command {arguments[0]!r}{hint} (there are {', '.join(COMMANDS)})")
    options, rest = parser.parse_known_args(arguments)
    return Given(options.command, options, _overrides(rest, options.command))


def _overrides(rest: list[str], command: str) -> list[str]:
    found, words = [], iter(rest)
    for word in words:
        if not word.startswith("--") or len(word) == 2:
            raise UsageError(f"unexpected argument {word!r}; see s2s {command} --help")
        name, equals, value = word[2:].partition("=")
        value = value if equals else next(words, None)
        if value is None:
            raise UsageError(f"{word} has no value; write {word} VALUE")
        found.append(f"{name}={value}")
    return found


def make_parser() -> Parser:
    """All commands with their own options."""
    parser = Parser(prog="s2s", description=s2s_jax.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"s2s_jax {s2s_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    made = {
        name: commands.add_parser(
            name, help=meaning, description=meaning, epilog=OVERRIDES, allow_abbrev=False, add_help=name != "train"
        )
        for name, meaning in COMMANDS.items()
    }
    _train(made["train"])
    for name in ("translate", "evaluate", "score", "export", "align", "info"):
        made[name].add_argument("run", help="the folder of a trained run" + EXPORTED * (name == "translate"))
    for name in ("translate", "evaluate", "score", "export", "align"):
        _average(made[name])
    for name in ("translate", "evaluate", "score", "align"):
        _ensemble(made[name])
    _translate(made["translate"])
    _evaluate(made["evaluate"])
    _score(made["score"])
    _export(made["export"])
    _align(made["align"])
    made["attention"].add_argument("--cite", metavar="NAME", help="where a choice was published")
    _sweep(made["sweep"])
    _bench(made["bench"])
    for one in made.values():
        one.add_argument("--json", action="store_true", help="JSON on stdout and nothing else there")
    return parser


def _train(parser: Parser) -> None:
    parser.add_argument(
        "experiment", nargs="?", help="a Python file with experiment(), its name, or a run to go on with"
    )
    parser.add_argument("--run", help="folder of the run (default: runs/EXPERIMENT)")
    parser.add_argument(
        "--profile", metavar="DIR", help="leave a trace of ten steps there, for TensorBoard or Perfetto"
    )
    parser.add_argument("-h", "--help", action="store_true", help="this, with every setting of the experiment")


def _search(parser: Parser) -> None:
    parser.add_argument("--beam", type=int, help="hypotheses followed at once; 1 is greedy (default: the run's)")


def _average(parser: Parser) -> None:
    parser.add_argument("--average", type=int, default=0, metavar="N", help="the mean of the N newest checkpoints")


def _ensemble(parser: Parser) -> None:
    parser.add_argument(
        "--ensemble",
        dest="ensemble",
        action="append",
        default=[],
        metavar="RUN",
        help="a run that speaks together with the first; may be given again",
    )
    parser.add_argument("--ensemble-average", default="log-linear", help="how they do: log-linear (default) or linear")


def _translate(parser: Parser) -> None:
    _search(parser)
    parser.add_argument("--prefix", metavar="FILE", help="what each translation begins with, a line for each line")
    parser.add_argument(
        "--constraints", metavar="FILE", help="what each translation holds: phrases between tabs, a line for each line"
    )
    parser.add_argument("--input", help="file of lines, plain or .gz (default: stdin)")
    parser.add_argument("--n-best", type=int, default=1, help="translations a line, best first (default: 1)")


def _evaluate(parser: Parser) -> None:
    _search(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")


def _score(parser: Parser) -> None:
    parser.add_argument("--input", help="pairs: TSV, JSON lines, or two files as A,B (default: TSV from stdin)")
    parser.add_argument(
        "--n-best",
        metavar="FILE",
        help="pairs instead whose equal sources stand together: put them in order, best first",
    )


def _export(parser: Parser) -> None:
    parser.add_argument("output", help="the folder to write; it must not exist")
    parser.add_argument(
        "--beam", type=int, default=5, help="hypotheses of the search beside greedy search (default: 5)"
    )
    parser.add_argument("--max-length", type=int, default=0, help="most tokens of a translation (default: the run's)")
    parser.add_argument("--parameters-only", action="store_true", help="no programs")


def _align(parser: Parser) -> None:
    _search(parser)
    parser.add_argument("--input", help="file of lines to translate and draw (default: pairs of the split)")
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--count", type=int, default=4, help="how many to draw (default: 4)")
    parser.add_argument("--output", help="the picture (default: alignment.png in the run's folder)")


def _sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("plan", "run", "status", "report", "verify"), help="what to do with it")
    parser.add_argument("file", metavar="FILE", help="a Python file with sweep(), or the name of a shipped one")
    parser.add_argument(
        "--function", default="sweep", help="the function of FILE that returns the Sweep or Tuning (default: sweep)"
    )
    parser.add_argument("--seeds", type=int, default=0, help="use only the first so many seeds (default: all)")
    parser.add_argument("--out", help="folder of the sweep (default: runs/sweeps/FILE)")
    parser.add_argument("--jobs", type=int, default=0, help="trials at a time (default: one per GPU, else one)")
    parser.add_argument("--executor", default="local", help="local (default), ray or slurm")
    parser.add_argument("--address", default="", help="of a Ray cluster (default: one on this machine)")
    parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE", help="an option of Slurm")
    parser.add_argument(
        "--replicas",
        action="store_true",
        help="train all seeds in one program, with points that differ only in numbers that one program can vary",
    )
    parser.add_argument("--watch", action="store_true", help="status: refresh until all trials are done")
    parser.add_argument("--trial", default="", help="verify: the trial to train again (default: the first)")


def _bench(parser: Parser) -> None:
    parser.add_argument("works", nargs="*", default=["W1"], metavar="WORK", help="W1, W2, W3 or W4 (default: W1)")
    parser.add_argument("--phases", default="train,greedy,beam5", help="any of train,greedy,beam5 (default: all)")
    parser.add_argument("--precisions", default="float32,bfloat16", help="float32, bfloat16 or both (default)")
    parser.add_argument("--batches", default="1,32,100", help="sentences decoded together (default: 1,32,100)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each side takes (default: 5)")
    parser.add_argument("--against", default="", help="torch: the same work in PyTorch, by turns (extra `bench`)")
    parser.add_argument("--style", default="fast", help="how the opponent is written: fast (default) or tutorial")
    parser.add_argument("--python", default="", help="the interpreter that has torch (default: this one)")
    parser.add_argument(
        "--compare", metavar="SETTING=VALUE,VALUE", help="what each value costs a training step, by turns, instead"
    )
    parser.add_argument("--replicas", type=int, default=0, help="so many seeds in one program, against one by one")
    parser.add_argument("--profile", metavar="FILE", help="write where a training step goes instead, as Markdown")
