"""Our classes behind the Auto… doors of transformers, without importing it before it is needed."""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto."


def register() -> None:
    """Make ``AutoConfig``, ``AutoTokenizer`` and ``AutoModelForCausalLM`` know models of bytes, with no remote code.

    Each of them is told at once where its module is imported already, else when it is imported.
    """
    waiting = {name: step for name, step in _STEPS.items() if not _done(name, step)}
    if waiting and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(waiting))


def _done(name: str, step: Callable[[Any], None]) -> bool:
    module = sys.modules.get(name)
    if module is None:
        return False
    step(module)
    return True


def _register_config(module: Any) -> None:
    module.AutoConfig.register("bytelm", _ours("configuration_bytelm").BytelmConfig, exist_ok=True)


def _register_tokenizer(module: Any) -> None:
    tokenizer = _ours("tokenization_bytelm").BytelmTokenizer
    module.AutoTokenizer.register(
        _ours("configuration_bytelm").BytelmConfig, slow_tokenizer_class=tokenizer, exist_ok=True
    )


def _register_model(module: Any) -> None:
    model = _ours("modeling_bytelm").BytelmForCausalLM
    module.AutoModelForCausalLM.register(model.config_class, model, exist_ok=True)


def _ours(name: str) -> Any:
    return importlib.import_module(f"bytelm.hf.{name}")


_STEPS: dict[str, Callable[[Any], None]] = {
    f"{_AUTO}configuration_auto": _register_config,
    f"{_AUTO}tokenization_auto": _register_tokenizer,
    f"{_AUTO}modeling_auto": _register_model,
}


class _Finder(MetaPathFinder):
    """Finds a module as the other finders do, and has something done when it was imported."""

    def __init__(self, waiting: dict[str, Callable[[Any], None]]) -> None:
        self.waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of the modules that are waited for; None for all others."""
        step = self.waiting.pop(fullname, None)
        if step is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, step)
                return spec
        return None


class _Loader(Loader):
    """Imports as another loader does, then takes a step; after that the module has its own loader again."""

    def __init__(self, loader: Any, step: Callable[[Any], None]) -> None:
        self.loader, self.step = loader, step

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other loader."""
        found: ModuleType | None = self.loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        """As the other loader, then the step."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.step(module)
