"""What must not be in the source, and what prediction must not import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from toys import WORDS, draw, skipway

SOURCE = Path(__file__).parents[2] / "src" / "skipway"

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "np.load",
    "numpy.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
}
READERS = {"pd.read_pickle", "pandas.read_pickle", "safetensors.torch.load_model"}


def findings(code):
    """What is forbidden in `code`, as text with its line."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            from_torch = getattr(node, "module", None) == "torch" and {"load", "save"} & set(names)
            if from_torch or MODULES & {name.partition(".")[0] for name in names}:
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call):
            arrays_only = ast.unparse(node.func) == "np.load" and any(
                (keyword.arg, getattr(keyword.value, "value", None)) == ("allow_pickle", False)
                for keyword in node.keywords
            )
            if ast.unparse(node.func) in CALLS | READERS and not arrays_only:
                found.append((node.lineno, ast.unparse(node.func)))
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in (("shell", True), ("allow_pickle", True)):
                    found.append((node.lineno, f"{keyword.arg}=True"))
        elif isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "bare except"))
    return found


def test_the_source_holds_nothing_that_runs_data_as_code():
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 50
    found = {str(path.relative_to(SOURCE)): findings(path.read_text(encoding="utf-8")) for path in files}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path, weights_only=True)",
        "from torch import load",
        "x = eval(text)",
        "exec(code)",
        "np.load(path)",
        "np.load(path, allow_pickle=allowed)",
        "open_memmap(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "subprocess.run(words, shell=True)",
        "raise NotImplementedError",
        "raise NotImplementedError('later')",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_each_forbidden_thing_would_be_found(code):
    assert len(findings(code)) == 1


def test_what_looks_alike_is_allowed():
    assert findings("model.eval()\nre.compile(x)\njson.load(f)\ntorch.compile(m)\nrun(x, shell=False)") == []
    assert findings("np.load(path, allow_pickle=False)") == []
    assert findings("try:\n    f()\nexcept NotImplementedError:\n    pass") == []


PREDICT = """
import json, sys
from skipway.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as error:
    code = error.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""

HEAVY = {
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "timm",
    "matplotlib",
    "jinja2",
    "pickleshare",
    "sympy",
}


def test_prediction_imports_nothing_that_it_does_not_need(tmp_path):
    draw(tmp_path)
    run, out = tmp_path / "run", tmp_path / "out"
    code, _, err = skipway("train", tmp_path / "images", tmp_path / "masks", "-o", run, *WORDS)
    assert code == 0, err
    words = [sys.executable, "-c", PREDICT, "predict", run, tmp_path / "images", "-o", out, "--device", "cpu"]
    child = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["code"] == 0, child.stderr
    assert len(list(out.glob("*.tif"))) == 5
    assert HEAVY & set(found["modules"]) == set()
    assert {"torch", "skipway.predict.files", "skipway.weights"} <= set(found["modules"])
