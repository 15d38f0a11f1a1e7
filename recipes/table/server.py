"""Serves a table's pages to browsers on this machine: 127.0.0.1 alone, an address with a secret for each person.

A request counts only with a person's secret in its path, and with this server's own name as `Host`, which a name that
was pointed at this machine (DNS rebinding) does not have. A reply must come from a page of this server, as the browser
says it. What the game does with it is not known here.
"""

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from eval.templates import templates
from llm_sra.errors import UserError
from llm_sra.task import Message
from recipes.table.game import Game

LOOPBACK = "127.0.0.1"
PATIENCE = 0.5  # seconds that a page waits for an agent before it says so
ESCAPED = 12  # bytes of a form that a character can take
ROOM = 4096  # bytes of a form beside the reply
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Told:
    """What the pages say beside the game itself.

    Attributes:
        about: What the task is.
        rules: By seat, the rules as a model that does not know them is told them.
        examples: Legal replies, for seats without choices.
        more: Whether there are others.
        keeps: What is asked before something is kept: what, and where.
    """

    about: str
    rules: Mapping[str, tuple[Message, ...]]
    examples: tuple[str, ...] = ()
    more: bool = False
    keeps: str = ""


class TableServer(ThreadingHTTPServer):
    """The server; `serve_forever` serves.

    Args:
        game: What is played.
        told: What the pages say.
        port: On 127.0.0.1; 0: any free one.

    Raises:
        UserError: If the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, game: Game, told: Told, port: int = 0) -> None:
        self.game, self.told = game, told
        self.secrets = {seat: secrets.token_urlsafe(24) for seat in game.people}
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UserError(f"cannot listen at {LOOPBACK}:{port}: {error.strerror}; name another --port") from error
        self.names = {f"{host}:{self.server_port}" for host in (LOOPBACK, "localhost")}
        self._template = templates(Path(__file__).parent).get_template("page.html.jinja")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that goes away in the middle of something."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @property
    def addresses(self) -> dict[str, str]:
        """By seat, what the person in it opens."""
        return {seat: f"http://{LOOPBACK}:{self.server_port}/{secret}/" for seat, secret in self.secrets.items()}

    def seat_at(self, path: str) -> str | None:
        """The seat whose secret a path is."""
        given = path.encode("utf-8", "replace")
        found = [seat for seat, one in self.secrets.items() if secrets.compare_digest(given, f"/{one}/".encode())]
        return found[0] if found else None

    def page(self, seat: str, nonce: str) -> str:
        """A person's page as it is now.

        Args:
            seat: The person's.
            nonce: Of its style.
        """
        scene = self.game.scene(seat, PATIENCE)
        seats = self.game.task.seats
        totals = {one: sum(episode.total(one) for episode in scene.played) for one in seats}
        return self._template.render(
            scene=scene, told=self.told, rules=self.told.rules.get(seat, ()), nonce=nonce, seats=seats,
            problems=len(self.game.problems), totals=totals, longest=self.game.task.max_reply_chars,
        )  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: TableServer
    timeout = 10  # seconds for a request to arrive
    server_version = "llm-sra"
    sys_version = ""

    def do_GET(self) -> None:
        """A person's page."""
        seat = self._seat()
        if seat is None:
            return
        nonce = secrets.token_urlsafe(16)
        content = self.server.page(seat, nonce).encode("utf-8", "replace")
        self.send_response(HTTPStatus.OK)
        self._headers(
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(content)),
                "Content-Security-Policy": f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
                "base-uri 'none'; frame-ancestors 'none'",
            }
        )
        self.wfile.write(content)

    def do_POST(self) -> None:
        """What a person says; the answer leads back to the page."""
        seat = self._seat()
        if seat is None:
            return
        origins, sites = self.headers.get_all("Origin") or [], self.headers.get_all("Sec-Fetch-Site") or []
        if any(one not in {f"http://{name}" for name in self.server.names} for one in origins):
            return self._refuse(HTTPStatus.FORBIDDEN, "Replies are taken from this table's own page.")
        if any(one not in ("same-origin", "none") for one in sites):
            return self._refuse(HTTPStatus.FORBIDDEN, "Replies are taken from this table's own page.")
        if self.headers.get_content_type() != FORM:
            return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Expected a form: {FORM}.")
        length, most = self.headers.get("Content-Length", ""), ESCAPED * self.server.game.task.max_reply_chars + ROOM
        if not (length.isascii() and length.isdigit() and len(length) < 12):
            return self._refuse(HTTPStatus.LENGTH_REQUIRED, "Expected a Content-Length.")
        if int(length) > most:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A form has at most {most} bytes.")
        try:
            form = parse_qs(self.rfile.read(int(length)).decode("ascii", "replace"), errors="replace", max_num_fields=8)
            self._take(seat, {key: values[0] for key, values in form.items()})
        except ValueError as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, f"{error}")
        self.send_response(HTTPStatus.SEE_OTHER)
        self._headers({"Location": f"/{self.server.secrets[seat]}/", "Content-Length": "0"})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request's path is a secret."""

    def _take(self, seat: str, form: Mapping[str, str]) -> None:
        given = form.get("number", "0")
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
        match form.get("do") if number >= 0 else None:
            case "say":
                self.server.game.say(seat, number, form.get("text", ""))
            case "agree":
                self.server.game.agree(seat, form.get("name", ""))
            case "refuse":
                self.server.game.agree(seat, None)
            case "next":
                self.server.game.go_on(seat, number)
            case _:
                raise ValueError("expected a form of this table")

    def _seat(self) -> str | None:
        """Whose page is asked for; None after a refusal."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.server.names:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This is not the name of this table.")
            return None
        seat = self.server.seat_at(self.path)
        if seat is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page: open the address that the table printed.")
        return seat

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        content = message.encode("utf-8", "replace")
        self.send_response(status)
        self._headers(
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": str(len(content)),
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            }
        )
        self.wfile.write(content)

    def _headers(self, more: Mapping[str, str]) -> None:
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()
