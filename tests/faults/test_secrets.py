"""No API key in any file or text, and no way from data to code."""

import ast
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from small_runs import SMALL, command_line, one_line_of, train

import trpo_lightning
from trpo_lightning.__main__ import main
from trpo_lightning.storage import checksummed_file

KEY = "0123456789abcdef0123456789abcdefSECRETs!"
STUCK = ["rule.kl_slack=1e-9", "rule.max_rejections=2"]
PACKAGE = Path(trpo_lightning.__file__).parent
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}


def holding_the_key(folder: Path) -> list[str]:
    """Files below a folder with the key in them, or in their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if KEY.encode() in path.read_bytes() or KEY in str(path)]


class Refusing(BaseHTTPRequestHandler):
    """Answers 401 and says the key that it was given, as a careless server may."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"the key {KEY} is not known ({self.headers.get('Authorization')})".encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def refusing_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["offline", "disabled", "out of reach", "refused"])
def test_no_key_in_files_and_texts_of_runs_that_end_well_or_badly(tmp_path, mode):
    """The key is in the environment and in `.netrc`, as W&B's users have it."""
    (tmp_path / "home").mkdir()
    variables = {"WANDB_API_KEY": KEY, "HOME": str(tmp_path / "home"), "WANDB_ERROR_REPORTING": "false"}
    wandb = "tracking.wandb=online" if mode in ("out of reach", "refused") else f"tracking.wandb={mode}"
    run_dir = tmp_path / "run"
    with refusing_server() as refusing:
        variables["WANDB_BASE_URL"] = refusing if mode == "refused" else "http://127.0.0.1:9"  # nothing listens there
        again = ["train", "--run-dir", str(run_dir), *SMALL, wandb]
        calls = [command_line(*again, "evaluation.every=2", **variables), command_line(*again, **variables)]
        codes = [0, 2]
        if mode != "refused":  # each start waits 20 s for it
            calls += [
                command_line("evaluate", str(run_dir), "--episodes", "1", **variables),
                command_line("train", "--run-dir", str(tmp_path / "stuck"), *SMALL, wandb, *STUCK, **variables),
                command_line("train", "--resume", str(run_dir), "seed=x", **variables),
            ]
            codes += [0, 3, 2]
    assert [call.returncode for call in calls] == codes, [call.stderr for call in calls]
    assert all(KEY not in call.stdout + call.stderr for call in calls)
    assert not holding_the_key(run_dir)
    if mode != "refused":
        assert list((tmp_path / "stuck").glob("failed_update_*.pt")) and not holding_the_key(tmp_path / "stuck")


def test_no_key_in_the_files_of_a_run_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    train(tmp_path / "run", "tracking.wandb=offline", "evaluation.every=2")
    assert list((tmp_path / "run" / "wandb").rglob("*.wandb"))
    assert not holding_the_key(tmp_path / "run")


def calls_of(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("file", TREES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_way_from_data_to_code(file):
    for name, call in calls_of(TREES[file]):
        where = f"{file}:{call.lineno}: {name}"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "compile", "__import__", "input"), where
        assert last not in ("system", "popen", "getoutput", "getstatusoutput", "unsafe_load", "full_load"), where
        assert "shell" not in given, where
        if name in ("torch.load", "load_state_dict_from_file"):
            assert given.get("weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", where
        if name in ("yaml.load", "yaml.compose", "yaml.parse", "yaml.load_all"):
            assert given.get("Loader") == "yaml.SafeLoader", where
        if name.startswith("subprocess.") and last in ("run", "Popen", "call", "check_call", "check_output"):
            assert not isinstance(call.args[0], ast.JoinedStr | ast.Constant), f"{where}: give a list"


@pytest.mark.parametrize("file", TREES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_that_unpickles_is_imported(file):
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "code", "codeop"}
    for node in ast.walk(TREES[file]):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        assert not banned & {name.partition(".")[0] for name in names}, f"{file}:{node.lineno}"  # type: ignore[attr-defined]


def test_modules_are_imported_by_name_in_one_place_only():
    """`env.id=module:function`, `rule.name=module:Class` and so on: the user's own settings."""
    names = {file.name: [name for name, _ in calls_of(tree)] for file, tree in TREES.items()}
    assert [file for file, called in names.items() if "importlib.import_module" in called] == ["user_modules.py"]


def test_a_policy_that_names_code_runs_it_only_where_the_config_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # `main` sets them; this puts them back
    run_dir = tmp_path / "run"
    train(run_dir, "env.id=odd_environments:endless")
    assert main(["evaluate", str(run_dir), "--episodes", "1"]) == 0
    policy = run_dir / "checkpoints" / "last.pt"
    state = checksummed_file.read(policy)
    state["settings"]["env"] |= {"id": "os:mkdir", "kwargs": {"path": "mark"}}
    checksummed_file.save(state, policy)
    for path in (run_dir, policy):
        capsys.readouterr()
        assert main(["evaluate", str(path), "--episodes", "1"]) == 2
        assert "env.id=os:mkdir" in one_line_of(capsys.readouterr().err)
    assert not Path("mark").exists()


def test_the_guide_says_whose_code_is_run():
    page = " ".join((PACKAGE.parent / "docs" / "guide" / "first-run.md").read_text(encoding="utf-8").split())
    assert re.search(r"`module:function` is imported and called\. [^.]*your own config", page)


def test_the_variables_of_the_environment_are_not_recorded(tmp_path, monkeypatch):
    from trpo_lightning.runs.provenance import provenance

    monkeypatch.setenv("SOME_TOKEN", KEY)
    assert KEY not in repr(provenance()) and os.environ["SOME_TOKEN"] == KEY
