"""Open the HTML report in a browser, click on everything in it, and report the result."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Appended to a copy of the report: a click on each category and on the eye of each result.
_PROBE = """
<script>
(async () => {
  const errors = [], results = {};
  window.addEventListener("error", event => errors.push(event.message));
  window.addEventListener("unhandledrejection", event => errors.push(String(event.reason)));
  const console_error = console.error;
  console.error = (...words) => { errors.push(words.join(" ")); console_error(...words); };
  const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
  await wait(200);
  for (const category of Object.keys(categories)) {
    app.setView({ navbarMode: "menu" });
    await wait(100);
    app.showCategory(category);
    await wait(100);
    const eyes = () => [...document.querySelectorAll("table tbody tr")]
      .map(row => row.querySelector('a[type="button"]')).filter(Boolean);
    for (let number = 0; number < eyes().length; number++) {
      const eye = eyes()[number];
      const label = eye.closest("tr").innerText.trim();
      eye.click();
      await wait(150);
      const image = document.querySelector('img[src^="data:image/png"]');
      const page = document.querySelector("iframe");
      for (let turn = 0; image && !image.complete && turn < 50; turn++) { await wait(20); }
      results[category + ": " + label] = image
        ? { kind: "figure", width: image.naturalWidth }
        : { kind: page ? "page" : "nothing", size: page ? page.src.length : 0 };
    }
  }
  const seen = document.createElement("pre");
  seen.id = "seen";
  seen.textContent = JSON.stringify({ errors, results });
  document.body.appendChild(seen);
})();
</script>
"""


def find_browser() -> str | None:
    """Path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def open_report(browser: str, path_to_report: Path) -> dict[str, Any]:
    """Click through a report, without a network.

    Returns
    -------
    dict
        errors: from the page or the console; results: the content after each click; console: the
        output of the browser.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "report.html"
        copy.write_text(path_to_report.read_text(encoding="utf-8") + _PROBE, encoding="utf-8")
        done = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu",
                f"--user-data-dir={folder}/profile", "--virtual-time-budget=120000",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
                "--dump-dom", copy.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=240,
        )  # fmt: skip
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert seen, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(seen[1])) | {"console": console}
