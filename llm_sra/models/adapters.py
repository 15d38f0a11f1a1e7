"""Named LoRA adapters on one frozen base model: create, activate, copy, save, load.

A forward pass uses one adapter, or none (the base). All adapters stay trainable, whichever is active, so
that the optimizer and DistributedDataParallel always see the same parameters.

This module does not train, generate or choose names.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from llm_sra.models.adapter_files import (
    CARD,
    WEIGHTS,
    AdapterError,
    check_base,
    fingerprint,
    needs_own_base,
    read_adapter_config,
    read_card,
    read_weights,
    save_adapters,
    without_patterns,
)

__all__ = [
    "CARD",
    "WEIGHTS",
    "AdapterBank",
    "AdapterError",
    "check_base",
    "fingerprint",
    "needs_own_base",
    "read_adapter_config",
    "read_card",
    "save_adapters",
]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SHAPE = ("r", "lora_alpha", "use_rslora", "use_dora")  # needed to make sense of the weights


class AdapterBank:
    """The adapters of one base model.

    Args:
        model: The base model, without adapters yet.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: PreTrainedModel | PeftModel = model
        self._parameters: dict[str, list[torch.nn.Parameter]] = {}
        self._internal: set[str] = set()
        self._revisions: Counter[str] = Counter()
        self.fingerprint = fingerprint(model)  # now: some adapters bring modules of their own

    @classmethod
    def create(
        cls, base: PreTrainedModel, names: Sequence[str], config: LoraConfig, seed: int, internal: Sequence[str] = ()
    ) -> "AdapterBank":
        """Put new adapters on a base model.

        Args:
            base: Frozen by this.
            names: One adapter each; a name's initial weights depend on `seed` and the name alone.
            config: Shape of every adapter.
            seed: Any integer.
            internal: Further adapters that engines do not serve, such as those of critics.
        """
        bank = cls(base)
        for name in (*names, *internal):
            with _seeded(f"{seed}/{name}"):
                bank.add(name, config, served=name in names)
        bank.activate(bank.names[0])
        return bank

    def add(self, name: str, config: LoraConfig, served: bool = True) -> None:
        """Put one more adapter on the base, with fresh weights: it changes nothing yet.

        Args:
            name: Name of the adapter.
            config: Its shape.
            served: Whether engines serve it; a critic's adapter stays with the trainer.

        Raises:
            AdapterError: If the name is taken, or is not of letters, digits, `-` and `_`.
        """
        # PEFT tells adapters apart by parts of the parameters' names, and saves one called `default` elsewhere.
        taken = {
            "default",
            "lora_A",
            "lora_B",
            *(part for key, _ in self.model.named_parameters() for part in key.split(".")),
        }
        if name in taken or not _NAME.fullmatch(name):
            raise AdapterError(
                "an adapter needs a name of letters, digits, '-' and '_' that no other adapter and no module of the "
                f"model has, got {name!r}"
            )
        if isinstance(self.model, PeftModel):
            self.model.add_adapter(name, config)
        else:
            self.model = get_peft_model(self.model, config, adapter_name=name)
        self._parameters[name] = [p for key, p in self.model.named_parameters() if _belongs(key, name)]
        if not served:
            self._internal.add(name)
        self._unfreeze()

    @property
    def served(self) -> tuple[str, ...]:
        """Names of the adapters that engines serve."""
        return tuple(name for name in self.names if name not in self._internal)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all adapters, in the order of their creation."""
        return tuple(self.model.peft_config) if isinstance(self.model, PeftModel) else ()

    @property
    def base(self) -> PreTrainedModel:
        """The base model, with the adapters' layers in it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def activate(self, name: str) -> None:
        """Make later forward passes use this adapter.

        Raises:
            AdapterError: If there is no such adapter.
        """
        self._check(name)
        if self.model.active_adapters != [name]:
            self.model.set_adapter(name)
            self._unfreeze()

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Use this adapter, or the bare base model for None, inside the block; the active one is restored after it."""
        if name is None:
            try:
                with self.model.disable_adapter() if self.names else nullcontext():
                    yield
            finally:
                self._unfreeze()
            return
        self._check(name)
        before = self.model.active_adapters[0]
        self.activate(name)
        try:
            yield
        finally:
            self.activate(before)

    def parameters(self, name: str) -> list[torch.nn.Parameter]:
        """The trainable parameters of one adapter, in a fixed order."""
        self._check(name)
        return self._parameters[name]

    def rank(self, name: str) -> int:
        """The LoRA rank of an adapter."""
        self._check(name)
        return int(self.model.peft_config[name].r)

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of one adapter under PEFT's keys, without its name."""
        self._check(name)
        return dict(get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False))

    def set_state(self, name: str, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite the weights of an adapter.

        Raises:
            AdapterError: If keys or shapes differ from the adapter's own.
        """
        own = {key: tuple(value.shape) for key, value in self.state(name).items()}
        new = {key: tuple(value.shape) for key, value in state.items()}
        if own != new:
            differ = sorted(key for key in own.keys() | new.keys() if own.get(key) != new.get(key))
            key = differ[0]
            raise AdapterError(
                f"these weights do not fit adapter {name!r}: {len(differ)} tensors differ, among them {key}: expected "
                f"shape {own.get(key)}, got {new.get(key)}. The adapter was made with another rank, other target "
                "modules or another base model: use the settings that it was trained with"
            )
        set_peft_model_state_dict(self.model, dict(state), adapter_name=name)
        self.touch(name)

    def touch(self, *names: str) -> None:
        """Count a change by an optimizer: engines with copies of the weights then load the new ones."""
        self._revisions.update(names)

    def revision(self, name: str) -> int:
        """Grows whenever the weights of an adapter change."""
        self._check(name)
        return self._revisions[name]

    def digest(self, name: str) -> str:
        """A short hash of an adapter's present weights."""
        digest = hashlib.blake2b(digest_size=8)
        for key, tensor in sorted(self.state(name).items()):
            digest.update(key.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def shape(self, name: str) -> dict[str, Any]:
        """What is needed to make sense of an adapter's weights: its rank, its scale, how it is applied."""
        self._check(name)
        return {key: getattr(self.model.peft_config[name], key) for key in _SHAPE}

    def copy(self, source: str, target: str) -> None:
        """Make `target` equal to `source`."""
        self.set_state(target, {key: value.detach().clone() for key, value in self.state(source).items()})

    def save(self, folder: Path, names: Sequence[str] | None = None, card: Mapping[str, Any] | None = None) -> None:
        """Write adapters in PEFT format, one folder each: `folder/<name>/`.

        Args:
            folder: Made if missing.
            names: Which; all if None.
            card: Further facts to keep beside each adapter.
        """
        names = list(names or self.names)
        save_adapters(self.model, folder, names)
        facts = {"base_fingerprint": self.fingerprint, **(card or {})}
        for name in names:
            (folder / name / CARD).write_text(json.dumps({**facts, "policy": name}, indent=1), encoding="utf-8")

    def load(self, folder: Path, name: str) -> None:
        """Overwrite an adapter with a saved one, or add it under a new name.

        Args:
            folder: A folder in PEFT format, with safetensors weights.
            name: Name of the adapter in this bank.

        Raises:
            AdapterError: If the folder holds no adapter, one without safetensors, one that is damaged or not finite, or
                one of another base or rank.
        """
        config = read_adapter_config(folder)
        check_base(folder, self.fingerprint, self.base.name_or_path)
        own_base = needs_own_base(folder, config)
        if own_base and set(self.names) - {name}:
            raise AdapterError(
                f"the adapter at {folder} replaces weights of its base (bias {config.bias!r}, or embeddings), which "
                f"the adapters {', '.join(self.names)} share: load it on a base of its own"
            )
        state = read_weights(folder, config)
        fresh = name not in self.names
        if not fresh:
            own = self.model.peft_config[name]
            for key in _SHAPE:
                if getattr(config, key) != getattr(own, key):
                    raise AdapterError(
                        f"the adapter at {folder} has {key} {getattr(config, key)}, but adapter {name!r} has "
                        f"{getattr(own, key)}: use the settings that it was trained with"
                    )
        else:
            try:
                modules = [key.replace(".base_layer", "") for key, _ in self.base.named_modules()]
                self.add(name, without_patterns(config, modules))
            except AdapterError:
                raise
            except Exception as error:  # whatever PEFT says of a configuration that it cannot apply
                self._remove(name)
                raise AdapterError(
                    f"the adapter at {folder} does not fit the base model {self.base.name_or_path!r}: {error}"
                ) from error
        try:
            if own_base:
                set_peft_model_state_dict(self.model, dict(state), adapter_name=name)
                own = self.state(name)
                state = {key: state.get(key, own[key]) for key in own}
            self.set_state(name, state)
        except Exception as error:
            if fresh:
                self._remove(name)
            if isinstance(error, AdapterError):
                raise
            raise AdapterError(
                f"the weights of the adapter at {folder} do not fit the base model {self.base.name_or_path!r}: "
                f"{error}. Load it on the base that it was trained on"
            ) from error

    def _remove(self, name: str) -> None:
        """Take an adapter away, whole or as far as PEFT came with it: nothing of it may stay on the shared base."""
        if self.names == (name,):
            self.model = self.model.unload()  # PEFT's model cannot be without an adapter
        elif name in self.names:
            self.model.delete_adapter(name)
        layers = [(key, one) for key, one in self.base.named_modules() if isinstance(one, BaseTunerLayer)]
        for key, layer in layers:
            for part in (*layer.adapter_layer_names, *layer.other_param_names):
                held = getattr(layer, part, None)
                if isinstance(held, (dict, torch.nn.ModuleDict, torch.nn.ParameterDict, BufferDict)) and name in held:
                    del held[name]
            if not any(len(getattr(layer, part, ())) for part in layer.adapter_layer_names):
                parent, _, own = key.rpartition(".")
                setattr(self.base.get_submodule(parent), own, layer.get_base_layer())
        self._parameters.pop(name, None)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise AdapterError(f"no adapter {name!r}; there are: {', '.join(self.names)}")

    def _unfreeze(self) -> None:
        for parameters in self._parameters.values():
            for parameter in parameters:
                parameter.requires_grad_(True)


def _belongs(key: str, name: str) -> bool:
    """Whether a parameter `....lora_A.<name>.weight` is of this adapter."""
    parts = key.split(".")
    return any(part.startswith("lora_") and after == name for part, after in pairwise(parts))


@contextmanager
def _seeded(key: str) -> Iterator[None]:
    """A global torch generator that depends on `key` inside the block, and is as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
        yield
