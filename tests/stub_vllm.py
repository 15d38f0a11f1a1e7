"""A stand-in for the module `vllm`, which notes what is asked of it."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class StubLlm:
    """Notes what is asked of vLLM; each step finishes one request, with token 5."""

    def __init__(self, **options: Any) -> None:
        self.options, self.calls, self.open = options, [], []
        self.params: list[Any] = []
        self.llm_engine = SimpleNamespace(
            add_lora=lambda request: self.calls.append(("add", request.lora_name, request.lora_int_id)),
            remove_lora=lambda number: self.calls.append(("remove", number)),
            engine_core=SimpleNamespace(shutdown=lambda: self.calls.append(("shutdown",))),
            add_request=self.add_request,
            abort_request=lambda numbers: self.calls.append(("abort", *numbers)),
            step=self.step,
        )

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self) -> None:
        self.calls.append(("wake",))

    def add_request(self, number: str, prompt: Any, params: Any, lora_request: Any) -> None:
        if not prompt["prompt_token_ids"]:
            raise ValueError("the prompt is empty")
        self.calls.append(("request", lora_request.lora_name.split("@")[0]))
        self.params.append(params)
        self.open.append(number)

    def step(self) -> list[Any]:
        output = SimpleNamespace(token_ids=[5], logprobs=[{5: SimpleNamespace(logprob=-0.5)}])
        ended = SimpleNamespace(request_id=self.open.pop(), finished=True, outputs=[output])
        begun = [SimpleNamespace(request_id=number, finished=False, outputs=[output]) for number in self.open]
        return [*begun, ended]


def put_in_place(monkeypatch: pytest.MonkeyPatch, llm: type[StubLlm] = StubLlm) -> None:
    """Have `import vllm` give the stand-in."""
    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    sampling = ModuleType("vllm.sampling_params")
    sampling.RequestOutputKind = SimpleNamespace(FINAL_ONLY="final")  # type: ignore[attr-defined]
    vllm.LLM, vllm.SamplingParams = llm, lambda **options: options  # type: ignore[attr-defined]
    request.LoRARequest = lambda name, number, path: SimpleNamespace(  # type: ignore[attr-defined]
        lora_name=name, lora_int_id=number, lora_path=path
    )
    for module in (vllm, lora, request, sampling):
        monkeypatch.setitem(sys.modules, module.__name__, module)
