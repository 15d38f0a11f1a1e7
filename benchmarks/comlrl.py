"""One whole step of CoMLRL's MAGRPO with two agents, each a model of its own: a program for a process measured.

The same prompts, reply lengths and number of episodes as ours. What differs, because CoMLRL has it no other way:

- Its agents are two models; `lora` gives each a base and an adapter of our shape, without it all weights are trained,
  as in its own examples.
- It plays and trains one problem at a time and one reply at a time; `train_batch_size` is the whole step, so that each
  agent is updated once a step, as in ours.
- Episodes of several turns are a tree: each of the G replies of a turn is gone on from with G more. With G = 2, the
  least it takes, six turns make 63 nodes of two replies and two agents: 252 replies a problem. Ours plays 21 episodes
  of 12 replies for that. Its history is re-tokenised text.
- It trains all but the last token of a reply (`logits[prompt - 1 : -1]` of a sequence that lacks the last token).
"""

import os
from typing import Any

os.environ.setdefault("WANDB_MODE", "disabled")

import torch
from comlrl.trainers.reinforce import MAGRPOConfig, MAGRPOTrainer
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from benchmarks.drivers import LORA, Steps
from benchmarks.fixed import Fixed, Said, question, score
from benchmarks.measure import Result, answer, asked
from llm_sra.models.loading import load_model


def comlrl(job: dict[str, Any]) -> Result:
    """MAGRPO."""
    agents, tokenizer = [], None
    for _ in Fixed.seats:
        model, tokenizer = load_model(job["model"])
        agents.append(get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **LORA)) if job["lora"] else model)
    assert tokenizer is not None
    task, steps, counts = Fixed(turns=job["turns"]), Steps(), [0, 0, 0]
    steps.watch(torch.Tensor, "backward", "backward")

    def as_text(state: Said, seat: str) -> str:
        messages = [message.as_dict() for message in task.view(state, seat)]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def go_on(prompt: str, response_history_per_agent: Any, **_: Any) -> list[str]:
        turns = zip(*response_history_per_agent, strict=True)
        state = Said(prompt, tuple(dict(zip(Fixed.seats, texts, strict=True)) for texts in turns))
        return [as_text(state, seat) for seat in Fixed.seats]

    class Counted(MAGRPOTrainer):  # type: ignore[misc, unused-ignore]
        def get_train_dataloader(self) -> Any:  # once an epoch, which is a step here
            if counts[1]:
                self.over()
            return super().get_train_dataloader()

        def over(self) -> None:
            steps.counts.append((counts[0], counts[1], counts[2]))
            counts[:] = [0, 0, 0]
            steps.end()

        def _generate_completions(self, *args: Any, **kwargs: Any) -> Any:
            made = super()._generate_completions(*args, **kwargs)
            replies = made["completion_input_ids"][0]
            counts[0] += made["prompt_input_ids"].numel() * len(replies)
            counts[1] += sum(len(reply) for reply in replies)
            counts[2] += sum(len(reply) - 1 for reply in replies)
            return made

    nodes = sum(job["generations"] ** turn for turn in range(job["turns"]))
    args = MAGRPOConfig(
        num_train_epochs=job["steps"],
        agent_learning_rate=1e-5,
        num_agents=2,
        num_generations=job["generations"],
        max_new_tokens=job["tokens"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        num_turns=job["turns"],
        early_termination_threshold=None,
        eval_interval=0,
        rollout_buffer_size=job["problems"] * nodes,
        train_batch_size=job["problems"] * nodes,
        agent_devices="cuda" if torch.cuda.is_available() else "cpu",
    )
    trainer = Counted(
        agents=agents,
        tokenizer=tokenizer,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [question(number) for number in range(job["problems"])]}),
        reward_func=lambda *replies: [score([texts[0] for texts in replies])],
        formatters=lambda item, external_prompts=None: external_prompts or as_text(Said(item["prompt"]), "left"),
        external_transition=go_on,
    )
    steps.begin()
    trainer.train()
    trainer.over()
    return steps.result()


if __name__ == "__main__":
    answer(comlrl(asked()))
