"""A provider that the worker's own chain is measured beside."""

from __future__ import annotations

import httpx
from langchain_ollama import ChatOllama

from selfheal_worker.model.errors import BadOutputError
from selfheal_worker.model.provider import Answer, ModelConfig
from selfheal_worker.task import prompt


class Structured:
    """LangChain's structured output in place of the worker's own chain."""

    name, model, version = "structured", "tiny:1b", "1"

    def __init__(self, config: ModelConfig) -> None:
        limits = httpx.Limits(max_connections=34, max_keepalive_connections=34)
        chat = ChatOllama(
            model=self.model,
            base_url=config.base_url,
            temperature=0,
            reasoning=False,
            client_kwargs={"timeout": 60, "limits": limits},
        )
        self.task = config.task
        schema = {"title": "Answer", "description": "What a text shows.", **self.task.grammar()}
        self.chat = chat.with_structured_output(schema, include_raw=True)

    def warm_up(self) -> None:
        """Nothing is loaded."""

    def close(self) -> None:
        """Connections end with the process."""

    def analyse(self, text: str, deadline: float) -> Answer:
        """Call the model, without any deadline of its own."""
        reply = self.chat.invoke(prompt.messages(self.task, text))
        if not isinstance(reply, dict) or reply["parsed"] is None:
            raise BadOutputError("not parsed")
        return Answer(reply["parsed"])
