"""What tests of the table share: a table that is served, and a person who asks it by plain HTTP."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Thread
from urllib.parse import urlencode, urlsplit

from llm_sra.task import Message
from recipes.table.game import Game
from recipes.table.server import FORM, TableServer, Told

RULES = (Message("system", "Say the word."),)


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def phase(self) -> str:
        return re.search(r'data-phase="(\w*)"', self.text)[1]

    @property
    def number(self) -> str:
        """Of the form that the page holds."""
        return re.search(r'name="number" value="(\d+)"', self.text)[1]


class Visitor:
    """A browser in its simplest form."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.path = parts.netloc, parts.path

    def ask(self, method: str = "GET", path: str | None = None, body: object = None, **headers: str) -> Answer:
        connection = HTTPConnection(self.host, timeout=10)
        sent = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, self.path if path is None else path, body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read().decode())
        connection.close()
        return answer

    def post(self, form: Mapping[str, object], **headers: str) -> Answer:
        own = {"Origin": f"http://{self.host}", "Sec_Fetch_Site": "same-origin", "Content_Type": FORM}
        return self.ask("POST", None, urlencode(form), **{**own, **headers})

    def until(self, *phases: str) -> Answer:
        """The page, as soon as it is in one of these phases."""
        end = time.monotonic() + 20
        while (page := self.ask()).phase not in phases:
            assert time.monotonic() < end, f"the page is {page.phase}, not {phases}"
        return page

    def say(self, text: str) -> Answer:
        page = self.until("asked")
        return self.post({"do": "say", "number": page.number, "text": text})

    def go_on(self) -> Answer:
        return self.post({"do": "next", "number": self.until("ended").number})


@contextmanager
def served(game: Game, told: Told | None = None) -> Iterator[tuple[TableServer, dict[str, Visitor], Thread]]:
    """A table that is being played, its people by seat, and the thread that plays."""
    told = told or Told("A toy.", dict.fromkeys(game.people, RULES), ("hm",), False, "FILE would hold all.")
    with TableServer(game, told) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        playing = Thread(target=game.run, daemon=True)
        playing.start()
        yield server, {seat: Visitor(address) for seat, address in server.addresses.items()}, playing
        server.shutdown()
