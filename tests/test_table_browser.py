"""`llm-sra table` in a real browser: two people play, on a phone and on a desk; hostile pages and texts do nothing."""

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import CHROMIUM, Browser, Page, browsing
from partners_support import APPLE, PEAR
from support import Says, Toy
from table_support import served

from llm_sra.episodes.people import PeopleFile, read_people
from llm_sra.policies import Scripted
from recipes.table.game import Game

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
HOSTILE = "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PICTURES = os.environ.get("LLM_SRA_PICTURES")  # a folder, to look at the pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as one:
        yield one


def phase(page: Page, wanted: str) -> None:
    page.until(f"document.readyState === 'complete' && document.body.dataset.phase === '{wanted}'")


def say(page: Page, text: str) -> None:
    phase(page, "asked")
    before = page.value("document.body.dataset.question")
    page.type("#text", text)
    page.click("#reply button")
    page.until(f"document.body && (document.body.dataset.question !== '{before}' || !document.querySelector('#reply'))")


def fits(page: Page, name: str) -> None:
    """Nothing stands beyond the edge of the window, and what can be clicked is large enough for a finger."""
    if PICTURES:
        page.picture(Path(PICTURES) / f"{name}.png")
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), name
    assert page.value("[...document.querySelectorAll('button')].every(b => b.getBoundingClientRect().height >= 44)")


def test_two_people_agree_play_and_see_the_scores_on_a_phone_and_on_a_desk(browser: Browser, tmp_path: Path) -> None:
    kept = PeopleFile(tmp_path / "people.jsonl", "Toy")
    with served(Game(Toy(turns=4), [APPLE, PEAR], keep=kept.append)) as (server, _, playing):
        left, right = browser.open(server.addresses["left"], 390, 844), browser.open(server.addresses["right"])
        for page, name in ((left, "Anna"), (right, "Bob")):
            phase(page, "consent")
            fits(page, f"consent-{name}")
            page.type("#name", name)
            page.click("form button")
        say(left, "hm " + "x" * 100)
        phase(left, "waiting")
        fits(left, "waiting")
        phase(right, "asked")  # by itself: the page looks again
        fits(right, "asked")
        say(right, "hm")
        phase(left, "asked")
        fits(left, "asked-phone")
        say(left, "apple")
        say(right, "hm")
        for page in (left, right):
            phase(page, "ended")
            fits(page, "ended")
            assert page.value("document.querySelectorAll('#scores tbody td')[1].textContent") == "yes"
            page.click("main form button")
        for text in ("a", "b"):
            say(left, text), say(right, text)
        phase(left, "over"), phase(right, "over")
        fits(left, "over-phone")
        assert left.value("document.querySelector('#scores tfoot').innerText").split() == ["sum", "1", "+0.00", "+0.00"]
        playing.join(10)
    assert [one.record.solved for one in read_people(tmp_path / "people.jsonl")] == [True, False]


def test_hostile_text_stays_text_and_runs_nothing(browser: Browser) -> None:
    with served(Game(Toy(turns=4), [APPLE], {"right": Scripted("agent", Says(HOSTILE))})) as (server, _, _):
        page = browser.open(server.addresses["left"])
        say(page, HOSTILE)
        say(page, "hm")
        phase(page, "over")
        assert page.text().count(HOSTILE) == 3
        assert page.value("document.title") == "The end – left"
        assert page.value("document.querySelectorAll('script, img').length") == 0


def test_the_policy_stops_a_script_that_got_into_the_page(browser: Browser) -> None:
    with served(Game(Toy(), [APPLE], {"right": Scripted("agent", Says("hm"))})) as (server, _, _):
        page = browser.open(server.addresses["left"])
        phase(page, "asked")
        page.value(
            "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\";"
            "document.body.append(s)"
        )
        page.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title=1\">')")
        assert page.value("document.title") == "Your turn – left"


def test_a_page_of_another_origin_cannot_post_though_it_knows_the_address(browser: Browser) -> None:
    with served(Game(Toy(), [APPLE], {"right": Scripted("agent", Says("hm"))})) as (server, people, _):
        number = people["left"].until("asked").number
        form = (
            f"<body onload='document.forms[0].submit()'><form method=post action='{server.addresses['left']}'>"
            f"<input name=do value=say><input name=number value={number}><input name=text value=forged></form>"
        )

        class Evil(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(form.encode())

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Evil) as evil:
            Thread(target=evil.serve_forever, daemon=True).start()
            page = browser.open(f"http://127.0.0.1:{evil.server_port}/")
            page.until("document.body && document.body.innerText.includes('taken from this table')")
            evil.shutdown()
        assert people["left"].until("asked").number == number


def test_a_name_that_was_pointed_at_this_machine_reaches_nothing(browser: Browser) -> None:
    with served(Game(Toy(), [APPLE], {"right": Scripted("agent", Says("hm"))})) as (server, _, _):
        page = browser.open(server.addresses["left"].replace("127.0.0.1", "evil.example"))
        page.until("document.body && document.body.innerText === 'This is not the name of this table.'")
        assert page.value("location.hostname") == "evil.example"
