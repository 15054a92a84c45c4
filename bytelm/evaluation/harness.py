"""lm-evaluation-harness from here: its tasks and those that come with this package, on models of this package.

``python -m bytelm.evaluation.harness …`` is the command line of lm_eval itself, which then knows ``--model bytelm``;
lm_eval 0.4 finds no model of another package by itself.
"""

import contextlib
import difflib
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.errors import BytelmError, ConfigError

if TYPE_CHECKING:
    from bytelm.evaluation.harness_model import BytelmLM as BytelmLM

TASKS = Path(__file__).parent / "tasks"
"""The tasks that come with this package; their data are a dozen items each, written for it, and no published ones."""

_OURS = "bytelm_"
_NOISE = ("Custom kwargs can be passed", "Overwriting default num_fewshot", "specified through cli")
_REFUSED = (ValueError, KeyError, TypeError, AttributeError, ImportError, OSError)
"""What the harness raises for a task that it cannot make."""


def __getattr__(name: str) -> Any:
    """``BytelmLM``, on first use: lm_eval takes seconds to import."""
    if name == "BytelmLM":
        check_installed()
        from bytelm.evaluation.harness_model import BytelmLM

        return BytelmLM
    raise AttributeError(f"module 'bytelm.evaluation.harness' has no attribute {name!r}")


def check_installed() -> None:
    """See that lm_eval is there.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm_eval: not installed, expected the extra eval: pip install 'bytelm[eval]'")


def find_tasks(
    names: Sequence[str], include_path: Path | None = None, data: Mapping[str, str] | None = None
) -> list[Any]:
    """The tasks and groups of these names, as ``simple_evaluate`` takes them.

    Args:
        names: of tasks, groups and tags, with wildcards, or paths of YAML files; of this package, of ``include_path``,
            or of the harness, whose own tasks fetch their data from the hub.
        include_path: a folder of more tasks.
        data: files for tasks of this package to read instead of their own, by the task's name.
    Raises:
        ConfigError: lm_eval is missing, a name is unknown, or a task cannot be made; names it.
        CorpusError: a file of ``data``, or of a task of this package, cannot be read.
    """
    check_installed()
    from lm_eval.tasks import TaskManager

    if include_path is not None and not any(include_path.glob("**/*.yaml")):
        raise ConfigError(f"{include_path}: found no task, expected a folder of .yaml files")
    folders = [str(TASKS), *([] if include_path is None else [str(include_path)])]
    metadata = {"bytelm_data": dict(data)} if data else None
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
    for task in data or {}:
        if not (TASKS / f"{task}.jsonl").is_file():
            raise ConfigError(f"data: {_unknown(task, [path.stem for path in TASKS.glob('*.jsonl')])}")
    others = [name for name in names if not _matches(manager, name)]
    if others and not any(name.startswith(_OURS) for name in others):  # thousands of files: not for a slip of the pen
        manager = TaskManager(include_path=folders, metadata=metadata)
    found = []
    for name in dict.fromkeys(names):
        matches = _matches(manager, name)
        if not matches:
            raise ConfigError(f"tasks: {_unknown(name, manager.all_tasks)}")
        for match in matches:
            found += _load(manager, match)
    return found


def _matches(manager: Any, name: str) -> list[str]:
    """The names that a name or pattern stands for; a path stands for itself."""
    if name in manager.all_tasks or (name.endswith(".yaml") and Path(name).is_file()):
        return [name]
    return manager.match_tasks([name])


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3) or [known[0], "…"]
    return f"found {name!r}, which is no task, expected one such as {', '.join(near)}"


def _load(manager: Any, name: str) -> list[Any]:
    """The group of this name, or its tasks."""
    import jinja2

    try:
        with quiet():
            loaded = manager.load([name])
    except BytelmError:
        raise
    except (*_REFUSED, jinja2.TemplateError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"task {name}: the harness cannot make it: {reason:.300}") from error
    inner = {child for children in loaded["group_map"].values() for child in children}
    groups = [group for group_name, group in loaded["groups"].items() if group_name not in inner]
    return groups or list(loaded["tasks"].values())


def evaluate(
    lm: "BytelmLM",
    tasks: Sequence[Any],
    *,
    limit: float | None = None,
    num_fewshot: int | None = None,
    cache: Path | None = None,
    bootstrap: int = 1000,
    seed: int = 1234,
    gen_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``lm_eval.simple_evaluate`` gives: ``results``, ``samples``, ``configs`` and more.

    Args:
        lm: the model.
        tasks: of :func:`find_tasks`.
        limit: the first so many items of each task; below 1, a share of them.
        num_fewshot: examples before each item; what the task says for None.
        cache: a folder where answers are kept, for this model and law; the harness keeps them pickled, so it must be
            one's own.
        bootstrap: draws for the standard errors of metrics that have no formula; 0 for no standard errors at all.
        seed: of the choice of examples.
        gen_kwargs: keywords that replace those of generating tasks.
    Raises:
        BytelmError: a request that the model cannot serve.
        ConfigError: the harness refuses a task or an option.
    """
    import jinja2
    import lm_eval
    from lm_eval.tasks import TaskManager

    if limit is not None and limit <= 0:
        raise ConfigError(f"limit: found {limit:g}, expected a number of items, or a share below 1")
    use_cache = None
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        use_cache = str(cache / lm.fingerprint)
    try:
        with quiet():
            return lm_eval.simple_evaluate(
                model=lm,
                tasks=list(tasks),
                task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),  # else it reads thousands
                limit=limit,
                num_fewshot=num_fewshot,
                use_cache=use_cache,
                bootstrap_iters=bootstrap,
                gen_kwargs=dict(gen_kwargs) if gen_kwargs else None,
                batch_size=lm.batch_size,
                fewshot_random_seed=seed,
            )
    except (ValueError, jinja2.TemplateError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"tasks: the harness cannot run them: {reason:.300}") from error


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of ``results``, one row for each metric of each task and group.

    Each has ``task``, ``items``, ``num_fewshot``, ``metric``, ``filter``, ``value``, ``stderr`` (None where there is
    none) and ``higher_is_better``.
    """
    rows = []
    for task, figures in results["results"].items():
        for key, value in figures.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or isinstance(value, str):
                continue
            stderr = figures.get(f"{metric}_stderr,{chosen}")
            rows.append(
                {
                    "task": task,
                    "items": results.get("n-samples", {}).get(task, {}).get("effective"),
                    "num_fewshot": results.get("n-shot", {}).get(task),
                    "metric": metric,
                    "filter": chosen,
                    "value": float(value),
                    "stderr": None if stderr is None or isinstance(stderr, str) else float(stderr),
                    "higher_is_better": results.get("higher_is_better", {}).get(task, {}).get(metric),
                }
            )
    return rows


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Standard output stays free, standard errors are drawn in this process, progress is shown on a terminal alone, and
    advice of the harness is left out; so is its list of all installed packages, which takes longer than a small task.
    """
    from lm_eval import evaluator
    from tqdm.std import tqdm

    listed, made = evaluator.add_env_info, tqdm.__init__
    evaluator.add_env_info = lambda storage: None
    if not sys.stderr.isatty():
        tqdm.__init__ = functools.partialmethod(made, disable=True)
    logger, before = logging.getLogger("lm_eval"), os.environ.get("DISABLE_MULTIPROC")
    handlers = [logging.getLogger(name) for name in ("lm_eval.api.task", "lm_eval.evaluator", "lm_eval.config.task")]
    os.environ["DISABLE_MULTIPROC"] = "1"
    for each in (logger, *handlers):
        each.addFilter(_worth_saying)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        tqdm.__init__, evaluator.add_env_info = made, listed
        for each in (logger, *handlers):
            each.removeFilter(_worth_saying)
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _worth_saying(record: logging.LogRecord) -> bool:
    return not any(noise in record.getMessage() for noise in _NOISE)


def main() -> None:
    """The command line of lm_eval, with ``--model bytelm``; ``--include_path`` :data:`TASKS` gives it our tasks.

    Raises:
        ConfigError: lm_eval is not installed.
    """
    check_installed()
    import lm_eval.__main__

    import bytelm.evaluation.harness_model  # noqa: F401  # registers the name

    lm_eval.__main__.cli_evaluate()


if __name__ == "__main__":
    main()
