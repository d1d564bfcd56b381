"""A person's browser: Debian's Chromium, which has imported the platform's authority as its user would."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from door import Door
from playwright.sync_api import BrowserContext, HttpCredentials, Page, Request, Response, sync_playwright


@dataclass
class Browser:
    """A window, and what its pages have complained about."""

    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    def open(self, url: str) -> Page:
        page = self.context.new_page()
        page.on("console", lambda said: self._note(said.text, said.location["url"]) if said.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error), page.url))
        page.on("response", self._look)
        page.on("requestfailed", self._failed)
        page.goto(url)
        return page

    def _look(self, response: Response) -> None:
        if response.status >= 400:
            self._note(f"{response.request.method} is answered with {response.status}", response.url)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the page itself, which goes on to another
            self._note(str(request.failure), request.url)

    def _note(self, fault: str, url: str) -> None:
        self.faults.append(f"{url}: {fault}")


@contextmanager
def running(door: Door, home: Path, *, login: tuple[str, str] | None = None, width: int = 1280) -> Iterator[Browser]:
    """A browser whose files go to `home`, that knows the platform's names, and logs in where it is asked."""
    certificates = home / ".pki/nssdb"
    if not certificates.exists():
        certificates.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{certificates}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        subprocess.run([*certutil, "-A", "-t", "C,,", "-n", "platform", "-i", str(door.authority)], check=True)
    names = f"--host-resolver-rules=MAP {door.domain} {door.address},MAP *.{door.domain} {door.address}"
    credentials = HttpCredentials(username=login[0], password=login[1]) if login else None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=[names] if door.domain else [],
            chromium_sandbox=False,  # which root cannot have
            env={**os.environ, "HOME": str(home)},
        )
        context = browser.new_context(http_credentials=credentials, viewport={"width": width, "height": 900})
        try:
            yield Browser(context)
        except BaseException:
            for number, page in enumerate(context.pages):
                page.screenshot(path=home / f"failed-{number}.png")
            raise
        finally:
            browser.close()
