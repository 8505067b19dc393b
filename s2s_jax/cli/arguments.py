"""The commands and their options. Every other `--name value` overrides a setting of the experiment."""

import argparse
import dataclasses
from typing import Any, NoReturn

import s2s_jax

COMMANDS = {
    "train": "train an experiment, or resume a run",
    "translate": "translate lines of stdin or of a file",
    "evaluate": "compute the metrics of a run on a split of its data",
    "compare": "compare runs on a split of their data: significance, quality by length, settings that differ",
    "score": "compute the log-probability of given pairs, or rerank n-best lists",
    "export": "write a run as programs that do not need flax, and its parameters as safetensors",
    "serve": "translate, score and align for other programs, over HTTP",
    "explore": "write a page that shows what a run does with given sentences; `s2s serve` shows any",
    "align": "draw the attention weights of a run",
    "info": "describe a run: step, parameters, data, checkpoints",
    "checkpoint": "verify that every bit of a run's checkpoints and other files is as it was written",
    "sweep": "plan, run, watch, report or verify a grid of experiments",
    "attention": "list the choices of attention: formula, paper, and which of them can be combined",
    "bench": "measure speed against the limit of the machine, and against PyTorch",
    "completion": "print a script that completes commands, options and settings in a shell",
}
WITH_SETTINGS = (
    "train",
    "translate",
    "evaluate",
    "compare",
    "score",
    "export",
    "serve",
    "explore",
    "align",
    "sweep",
    "bench",
)
SETTINGS_HELP = (
    "any setting can be overridden, such as --model.attention.score dot; "
    "--help GROUP, such as --help model.attention, describes the settings of a group"
)
HELP_WIDTH = 80
_SPLITS = ("train", "validation", "test")


class UsageError(ValueError):
    """The command line does not make sense."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help fits 80 columns."""

    def __init__(self, **options):
        def formatter(prog: str) -> argparse.HelpFormatter:
            return argparse.HelpFormatter(prog, width=HELP_WIDTH, max_help_position=26)

        super().__init__(**{"formatter_class": formatter, "allow_abbrev": False, "add_help": False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A parsed command line."""

    command: str
    options: argparse.Namespace
    overrides: list[str]  # `name=value`, with underscores
    help: str | None = None  # a group of settings, or empty for all; None where no help is wanted


def make_parser() -> Parser:
    """The parser of `s2s`, with a parser of its own for each command."""
    parser = Parser(prog="s2s", description=s2s_jax.__doc__, add_help=True)
    parser.add_argument("--version", action="version", version=f"s2s_jax {s2s_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND [...]", parser_class=Parser)
    for name, description in COMMANDS.items():
        epilog = SETTINGS_HELP if name in WITH_SETTINGS else None
        command = commands.add_parser(name, help=description, description=description, epilog=epilog)
        OPTIONS[name](command)
        _add_common(command)
    return parser


def command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _add_common(parser: Parser) -> None:
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="your own Python file or module that adds scores, cells, metrics and the like; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, and nothing else there")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    parser.add_argument("-h", "--help", metavar="GROUP", nargs="?", help="show this help, or that of a group")


def _train(parser: Parser) -> None:
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT",
        help="a Python file with experiment(), its name, or a run to resume",
    )
    parser.add_argument("--run", metavar="DIR", help="directory of the run (default: runs/EXPERIMENT)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="train anew; a run that is in DIR is moved to DIR.old-1, or to the next number that is free",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="follow the learning rate schedule of another --steps from the newest checkpoint on",
    )
    parser.add_argument(
        "--from",
        dest="from_run",
        metavar="RUN",
        help="start from the parameters of RUN, RUN@STEP, RUN@latest or RUN@average:N (--warm-start.run)",
    )
    parser.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="do not train parameters of a path such as 'encoder.*'; may be repeated (--optimizer.freeze)",
    )
    parser.add_argument("--profile", metavar="DIR", help="write a trace of ten steps for TensorBoard or Perfetto")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train with the other processes of this Slurm or Open MPI job, Kubernetes job or TPU pod",
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, where no such job has it")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="the number of processes, with --coordinator or --executor ray"
    )
    parser.add_argument("--process-id", type=int, metavar="I", help="of this process, 0 to N-1, with --coordinator")
    parser.add_argument(
        "--executor",
        default="local",
        choices=("local", "ray", "slurm"),
        help="where to train: in this process (local, the default), or in several ones of a cluster",
    )
    parser.add_argument("--address", default="", help="of a Ray cluster (default: one on this machine)")
    parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE", help="an option of Slurm")


def _add_run(parser: Parser, *, exported: bool = False, ensemble: bool = True, average: bool = True) -> None:
    """The run that a command works on, and the runs and checkpoints to combine with it."""
    parser.add_argument("run", metavar="RUN", help="directory of a trained run" + ", or of an exported one" * exported)
    if average:
        parser.add_argument(
            "--average", type=int, default=0, metavar="N", help="average the parameters of the N newest checkpoints"
        )
    if ensemble:
        parser.add_argument(
            "--ensemble",
            action="append",
            default=[],
            metavar="RUN",
            help="another run, decoded as an ensemble with the first; may be repeated",
        )
        parser.add_argument(
            "--ensemble-average",
            choices=("log-linear", "linear"),
            help="mean of the log-probabilities (log-linear, the default) or of the probabilities (linear)",
        )


def _add_beam(parser: Parser) -> None:
    parser.add_argument(
        "--beam", type=int, metavar="N", help="beam width; 1 is greedy search (default: the run's search.beam)"
    )


def _add_window(parser: Parser) -> None:
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="most lines that are read before the first is answered (default: 16 batches; fewer where no more come)",
    )


def _translate(parser: Parser) -> None:
    _add_run(parser, exported=True)
    _add_beam(parser)
    parser.add_argument("--input", metavar="FILE", help="lines to translate, plain or .gz (default: stdin)")
    parser.add_argument(
        "--n-best",
        type=int,
        metavar="N",
        help="print the N best translations per line as `number ||| text ||| score`, lines counted from 0; the score "
        "is the one that search ranks by (search.length_normalization), or the utility of search.mbr_metric",
    )
    _add_window(parser)
    parser.add_argument("--prefix", metavar="FILE", help="line by line, the beginning of each translation")
    parser.add_argument(
        "--constraints",
        metavar="FILE",
        help="line by line, tab-separated phrases that each translation must contain; whole words under bpe, unigram",
    )


def _evaluate(parser: Parser) -> None:
    _add_run(parser)
    _add_beam(parser)
    parser.add_argument("--split", default="test", choices=_SPLITS, help="split of the data (default: test)")


def _compare(parser: Parser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of trained runs; those that differ in nothing but the seed are one system, and the system of "
        "the first is what the others are compared with",
    )
    _add_beam(parser)
    parser.add_argument("--split", default="test", choices=_SPLITS, help="split of the data (default: test)")
    parser.add_argument(
        "--metric", default="", help="the tested one (default: validation.metric, or bleu for the loss)"
    )


def _score(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument(
        "--input", metavar="FILE", help="pairs: TSV, JSON lines, or two files as A,B (default: TSV from stdin)"
    )
    parser.add_argument(
        "--n-best",
        metavar="FILE",
        help="pairs instead of --input; successive pairs of one source are reordered, best first, by the score that "
        "search ranks by (search.length_normalization) instead of the log-probability in nats",
    )
    _add_window(parser)


def _export(parser: Parser) -> None:
    _add_run(parser, ensemble=False)
    parser.add_argument("output", metavar="DIR", help="directory to write; it must not exist")
    parser.add_argument("--beam", type=int, metavar="N", help="beam width, exported beside greedy search (default: 5)")
    parser.add_argument("--max-length", type=int, metavar="N", help="most tokens of a translation (default: the run's)")
    parser.add_argument("--parameters-only", action="store_true", help="write no programs")


def _serve(parser: Parser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of trained or exported runs")
    for name, metavar, default, description in (
        ("host", "NAME", "127.0.0.1", "address to listen on; one that other machines reach needs --token"),
        ("port", "N", 8080, "port to listen on; 0 for one that is free"),
        ("token", "TEXT", "", "what clients must send as `Authorization: Bearer TEXT` (default: nothing)"),
        ("rows", "N", 8, "lines per batch, always; another number may round results differently"),
        ("max-tokens", "N", 64, "most tokens of a line, the end token included; programs are compiled up to it"),
        ("wait", "MS", 4.0, "milliseconds that a line waits at most for others to share its batch"),
        ("queue", "N", 1024, "most lines that wait; what is beyond is answered with 429"),
        ("max-lines", "N", 256, "most lines of a request that is not streamed"),
        ("max-bytes", "N", 1_000_000, "most bytes of a request"),
        ("deadline", "S", 30.0, "most seconds that a request may take; of a stream, each part"),
    ):
        end = "" if name == "token" else f" (default: {default})"
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar=metavar, help=description + end)
    parser.add_argument(
        "--constraints",
        action="store_true",
        help="serve prefixes and phrases too, whose programs make the start about four times as long",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="SETTINGS",
        help="a further search that requests may choose, such as beam=5 or method=sample,samples=4; may be repeated",
    )


def _explore(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument(
        "lines",
        nargs="?",
        metavar="LINES",
        help="file of sentences, each with a tab and its target behind it if it has one (default: stdin)",
    )
    _add_beam(parser)
    parser.add_argument("--static", metavar="FILE", help="the page, one file of HTML that opens without a network")


def _align(parser: Parser) -> None:
    _add_run(parser)
    _add_beam(parser)
    parser.add_argument("--input", metavar="FILE", help="lines to translate and draw (default: pairs of the split)")
    parser.add_argument("--split", choices=_SPLITS, help="split of the data (default: test)")
    parser.add_argument("--count", type=int, default=4, metavar="N", help="how many pairs to draw (default: 4)")
    parser.add_argument("--output", metavar="FILE", help="the picture (default: alignment.png in the run)")


def _info(parser: Parser) -> None:
    _add_run(parser, ensemble=False, average=False)


def _checkpoint(parser: Parser) -> None:
    parser.add_argument("action", choices=("verify",), help="what to do with the checkpoints")
    _add_run(parser, ensemble=False, average=False)


def _sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("plan", "run", "status", "report", "verify", "simulate"),
        help="what to do with it; simulate: print the error rates and the power of the tests that the report will make",
    )
    parser.add_argument("file", metavar="FILE", help="a Python file with sweep(), or the name of a shipped one")
    parser.add_argument(
        "others",
        nargs="*",
        metavar="OTHER",
        help="report: further sweeps, files or folders, to join with the first on the axes that they share",
    )
    parser.add_argument(
        "--function", default="sweep", help="the function of FILE that returns the Sweep or Tuning (default: sweep)"
    )
    parser.add_argument("--seeds", type=int, default=0, help="use only the first so many seeds (default: all)")
    parser.add_argument("--out", help="folder of the sweep (default: runs/sweeps/FILE)")
    _add_executor(parser)
    parser.add_argument(
        "--replicas",
        action="store_true",
        help="train all seeds in one program, with points that differ only in numbers that one program can vary",
    )
    parser.add_argument(
        "--effect",
        default="",
        metavar="X",
        help="plan: the power for a difference of X in the first metric, or, such as 3sd, in standard deviations",
    )
    parser.add_argument(
        "--repeats", type=int, default=1000, metavar="N", help="simulate: sweeps per row (default: 1000)"
    )
    parser.add_argument(
        "--retry-diverged", action="store_true", help="run: also train trials again that diverged, as they would again"
    )
    parser.add_argument("--watch", action="store_true", help="status: refresh until all trials are done")
    parser.add_argument("--trial", default="", help="verify: the trial to train again (default: the first)")


def _add_executor(parser: argparse.ArgumentParser) -> None:
    """What runs the trials of a sweep; `executor.executor_config` reads it."""

    def add(flag: str, text: str, **options: Any) -> None:
        parser.add_argument(flag, help=text, **options)

    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    add("--executor", "what runs the trials (default: local)", default="local", choices=("local", "ray", "slurm"))
    add("--jobs", "trials at a time (default: one per visible GPU or TPU chip, else one)", type=int, default=0)
    add("--per-device", "local: trials that share a GPU and its memory (default: 1)", type=int, metavar="N")
    add("--cores", "CPU cores per trial (default: an equal part; on a cluster, 1)", type=int, metavar="N")
    add("--address", "ray: address of the cluster (default: one on this machine)")
    add("--resources", "ray: what a trial takes, such as GPU=0.25 or TPU=4; may be repeated", **several)
    add("--runtime-env", "ray: environment of the workers, as JSON or a file of it", metavar="JSON")
    add("--minutes", "slurm: time limit of a trial's job, which resumes then (default: 1440)", type=int, metavar="N")
    add("--partition", "slurm: partition of the jobs", metavar="NAME")
    add("--account", "slurm: account that the jobs are charged to", metavar="NAME")
    add("--array-size", "slurm: most jobs in one array (default: 1000)", type=int, metavar="N")
    add("--slurm", "slurm: a parameter of submitit, such as gpus_per_node=1; may be repeated", **several)


def _attention(parser: Parser) -> None:
    parser.add_argument("--cite", metavar="NAME", help="show where a choice was published")


def _bench(parser: Parser) -> None:
    parser.add_argument(
        "workloads", nargs="*", default=["W1"], metavar="WORKLOAD", help="W1, W2, W3 or W4 (default: W1)"
    )
    parser.add_argument(
        "--phases", default="train,greedy,beam5", metavar="LIST", help="any of train,greedy,beam5 (default: all)"
    )
    parser.add_argument(
        "--precisions", default="float32,bfloat16", metavar="LIST", help="any of float32,bfloat16 (default: both)"
    )
    parser.add_argument(
        "--batches", default="1,32,100", metavar="LIST", help="sentences per decoded batch (default: 1,32,100)"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each side (default: 5)")
    parser.add_argument(
        "--against", default="", metavar="torch", help="torch: time the same workload in PyTorch, interleaved"
    )
    parser.add_argument(
        "--style", default="fast", choices=("fast", "tutorial"), help="how the PyTorch side is written (default: fast)"
    )
    parser.add_argument("--python", default="", metavar="FILE", help="the interpreter with torch (default: this one)")
    parser.add_argument(
        "--compare",
        metavar="SETTING=VALUE,VALUE",
        help="instead: interleaved timing of a train step under each value of a setting",
    )
    parser.add_argument(
        "--replicas", type=int, default=0, metavar="N", help="instead: N seeds in one program, against one by one"
    )
    parser.add_argument("--profile", metavar="FILE", help="instead: write a profile of a train step as Markdown")
    parser.add_argument(
        "--target",
        choices=("h100",),
        help="instead: compile for an H100, which need not be there, and count the kernels of a train step on the "
        "median batch, or of a search of 32 sentences that takes all its steps; per turn of each loop, too",
    )


def _completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that will read the script")


OPTIONS = {
    "train": _train,
    "translate": _translate,
    "evaluate": _evaluate,
    "compare": _compare,
    "score": _score,
    "export": _export,
    "serve": _serve,
    "explore": _explore,
    "align": _align,
    "info": _info,
    "checkpoint": _checkpoint,
    "sweep": _sweep,
    "attention": _attention,
    "bench": _bench,
    "completion": _completion,
}
