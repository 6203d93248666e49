"""What a real browser that reaches nothing makes of a page."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--enable-logging=stderr", "--virtual-time-budget=5000"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
MEASURE = """<script>addEventListener("load", () => {
  const all = [...document.querySelectorAll("svg circle")];
  const drawn = all.filter(c => c.getBoundingClientRect().width > 0);
  const wide = document.documentElement.scrollWidth > innerWidth;
  const outside = all.filter(c => {
    const box = c.ownerSVGElement.getBoundingClientRect(), own = c.getBoundingClientRect();
    return own.left < box.left || own.right > box.right || own.top < box.top || own.bottom > box.bottom; });
  const plots = document.querySelectorAll("svg").length;
  document.body.dataset.seen = [drawn.length, plots, wide, outside.length].join();
})</script>"""
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser on this machine (none of {', '.join(NAMES)})"
)


class Drawn(NamedTuple):
    """How many points and plots were drawn, whether the page is too wide, and points outside their plot."""

    points: int
    plots: int
    too_wide: bool = False
    outside: int = 0


def drawn(page: Path, folder: Path) -> Drawn:
    """What the browser says of a copy of `page` in `folder`; no script of the page may fail."""
    measured = folder / "measured.html"
    text = page.read_text(encoding="utf-8")
    measured.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    options = (*OPTIONS, f"--user-data-dir={folder / 'user'}", "--dump-dom", measured.as_uri())
    seen = subprocess.run([str(CHROMIUM), *options], capture_output=True, text=True, timeout=120)
    found = re.search(r'data-seen="(\d+),(\d+),(\w+),(\d+)"', seen.stdout)
    assert found, seen.stderr[-2000:]
    assert "Uncaught" not in seen.stderr
    return Drawn(int(found[1]), int(found[2]), found[3] == "true", int(found[4]))
