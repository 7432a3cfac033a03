"""The layout that CONTRIBUTING.md describes: imports point one way, and every package is installed."""

import ast
import configparser
import re

import pytest

import tfbn
from paths import ROOT

pytestmark = pytest.mark.checkout

# Each part of the package may import those before it in this list, and nothing after it.
ORDER = [
    "quiet|messages|axes|sums|arguments",
    "functional",
    "kernels",
    "layer",
    "renorm",
    "batch_norms",
    "moving_statistics",
    "copying",
    "cloning",
    "data_format",
    "population|convert|folding",
    "export",
    "printing",
    "cli",
]
COMPAT_ORDER = [
    "arg_scope|graph|statistics|functional_model|inner_batch_norms|weight_losses|keras1_names|keras1_flow|keras1_arguments",
    "normalization|variable_store",
    "contrib|tf_layers|variable_scope|keras1",
    "checkpoint_file|checkpoint_names|checkpoint_values",
    "slim|checkpoints",
    "legacy|reference",
    "upgrade",
]
# Inside compat/legacy, likewise.
LEGACY_ORDER = [
    "errors|report|own_layers|own_wrappers|masks",
    "heaps|architecture|origin|shapes",
    "hdf5|statistics|values",
    "archive|inputs",
    "tfjs",
    "files|rows",
    "assignment|custom|fitting|order|convolutions|merges|norms|recurrent|wrappers",
    "keras1_table",
    "keras2_table",
    "graph",
    "load",
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names.split("|")}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def part_of(path):
    """Which part of the package a module belongs to: its own name, or its folder's."""
    return path.relative_to(ROOT / "tfbn").with_suffix("").parts[0]


def imported_parts(path):
    """The parts of tfbn that a module imports, relatively or by name."""
    package = ["tfbn", *path.relative_to(ROOT / "tfbn").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module or "").split(".")] if node.module else base
            if names == ["tfbn"]:
                yield from (alias.name for alias in node.names)
            elif names[:1] == ["tfbn"]:
                yield names[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("tfbn."))


def test_imports_point_one_way():
    for path in modules("tfbn"):
        part = part_of(path)
        if part == "__init__":
            continue
        for imported in imported_parts(path):
            if imported in RANK and imported != part:
                assert RANK[imported] < RANK[part], f"{part} imports {imported}"
            # The command stands on both.
            assert imported != "compat" or part == "cli", f"{path} imports compat, which imports tfbn"


def test_every_part_has_its_place_in_the_order():
    assert {part_of(path) for path in modules("tfbn")} - {"__init__"} == RANK.keys()


def test_compat_imports_point_one_way():
    rank = {name: number for number, names in enumerate(COMPAT_ORDER) for name in names.split("|")}
    outside = [path for path in modules("compat") if path.parent.name != "legacy"]
    assert {path.stem for path in outside} - {"__init__"} | {"legacy"} == rank.keys()
    for path in outside:
        if path.stem != "__init__":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level == 1:
                    allowed = node.module in rank and rank[node.module] < rank[path.stem]
                    same = rank[node.module] == rank[path.stem] and "checkpoint_" in path.stem
                    assert allowed or same, f"{path.stem} imports {node.module}"


def test_imports_within_legacy_point_one_way():
    rank = {name: number for number, names in enumerate(LEGACY_ORDER) for name in names.split("|")}
    found = modules("compat/legacy")
    assert {path.stem for path in found} - {"__init__"} == rank.keys()
    for path in found:
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        ]
        for node in nodes if path.stem != "__init__" else ():
            names = [node.module] if node.module else [alias.name for alias in node.names]
            if node.level == 1:
                assert all(rank[name] < rank[path.stem] for name in names), (
                    f"{path.stem} imports {names}"
                )
            elif node.level == 2:
                assert set(names) <= {"keras1", "keras1_names"}, f"{path.stem} imports {names}"


def test_files_of_models_are_data():
    """Nothing in compat/legacy can run, import or unpack what a file says."""
    for path in modules("compat/legacy"):
        text = path.read_text()
        assert not re.search(
            r"pickle|marshal|importlib|\beval\(|\bexec\(|deserialize|safe_mode", text
        ), path
    for path in ("errors", "heaps", "hdf5", "files", "architecture", "origin", "statistics"):
        assert "import keras" not in (ROOT / "compat" / "legacy" / f"{path}.py").read_text(), path


def test_mathematics_has_no_state_and_surgery_no_files():
    assert "keras" not in (ROOT / "tfbn" / "functional.py").read_text().lower().replace("no keras", "")
    for path in modules("tfbn/folding"):
        assert not re.search(r"\bopen\(|\.save\(|pathlib|import os\b", path.read_text()), path


def test_compat_reaches_tfbn_relatively():
    # So that a stray `import compat` fails instead of loading, and registering, everything twice.
    for path in modules("compat"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, "module", None) or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "tfbn" for name in names), path


def test_private_apis_of_tensorflow_and_keras_are_used_in_one_place():
    found = set()
    for path in modules("tfbn") + modules("compat"):
        text = path.read_text()
        if re.search(
            r"keras\.src|tensorflow\.python|\w\._(?!replace\b)[a-z]\w+\(", text.replace("self._", "")
        ):
            found.add(path.name)
    assert found == {"batch_norms.py", "kernels.py"}


def test_modules_and_functions_stay_small():
    for path in modules("tfbn") + modules("compat") + modules("benchmarks"):
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                start = node.body[1].lineno if ast.get_docstring(node) and node.body[1:] else node.lineno
                assert node.end_lineno - start < 50, f"{path}: {node.name}"


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_setup_cfg_lists_every_package():
    on_disk = {"tfbn"} | {
        ".".join(path.relative_to(ROOT).parts)
        for path in (ROOT / "tfbn").rglob("*")
        if path.is_dir() and (path / "__init__.py").exists()
    }
    on_disk |= {
        "tfbn." + ".".join(p.parent.relative_to(ROOT).parts)
        for p in (ROOT / "compat").rglob("__init__.py")
    }
    assert set(setup_cfg()["options"]["packages"].split()) == on_disk


def floors(requirements):
    return dict(re.findall(r"^(tensorflow|tensorflow-cpu|keras)>=(\S+)$", requirements, re.M))


def test_tensorflow_comes_by_an_extra():
    """Required of everyone, it would be installed beside tensorflow-cpu, over the same files."""
    parser = setup_cfg()
    extras = parser["options.extras_require"]
    assert floors(parser["options"]["install_requires"]).keys() == {"keras"}
    found = {name: floors(requirements) for name, requirements in extras.items()}
    floor = found["tensorflow"]["tensorflow"]
    assert found == {name: {} for name in extras} | {
        "tensorflow": {"tensorflow": floor},
        "tensorflow-cpu": {"tensorflow-cpu": floor},
    }
    for name in ("bench", "demo", "test"):
        assert "tfbn[tensorflow]" in extras[name].split()


def test_the_floors_are_what_the_oldest_environment_installs():
    parser, makefile = setup_cfg(), (ROOT / "Makefile").read_text()
    lowest = floors(parser["options"]["install_requires"])
    lowest |= floors(parser["options.extras_require"]["tensorflow"])
    oldest = dict(re.findall(r"(tensorflow|keras)==(\S+)", makefile))
    assert lowest.keys() == oldest.keys() == {"tensorflow", "keras"}
    for name, floor in lowest.items():
        assert oldest[name].startswith(floor + "."), name


def test_the_pythons_are_what_the_oldest_and_the_newest_environment_run():
    parser, makefile = setup_cfg(), (ROOT / "Makefile").read_text()
    (first,) = re.findall(r"^OLDEST_PYTHON \?= python3\.(\d+)$", makefile, re.M)
    (last,) = re.findall(r"^NEWEST_PYTHON \?= python3\.(\d+)$", makefile, re.M)
    assert parser["options"]["python_requires"] == f">=3.{first}"
    named = re.findall(r"Python :: 3\.(\d+)$", parser["metadata"]["classifiers"], re.M)
    assert named == [str(minor) for minor in range(int(first), int(last) + 1)]


def test_make_test_runs_with_either_kind_of_kernels():
    """What is not marked `once` runs on the checkout and on the wheel, each with its own setting."""
    makefile = (ROOT / "Makefile").read_text()
    switch = re.findall(r"^(test-\w+): export TF_ENABLE_ONEDNN_OPTS = ([01])$", makefile, re.M)
    assert dict(switch).keys() == {"test-checkout", "test-wheel"}
    assert set(dict(switch).values()) == {"0", "1"}
    assert "\n\t$(BIN)/$(PYTEST)\n" in makefile
    assert '$(PYTEST) -m "not checkout and not once"' in makefile


def test_the_changelog_knows_the_version():
    assert f"## {tfbn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# Tested in a folder of another name, or with what they are parts of: in test_cli, as the command is, in
# test_functional and in test_layer.
TESTS_OF = {"legacy": "model_files"}
TESTED_ELSEWHERE = {"quiet", "axes", "sums", "arguments", "printing", "moving_statistics"}


def files_of_tests(folder):
    """The test files of a folder and of those within."""
    return sorted((ROOT / "tests" / folder).rglob("test_*.py"))


def test_every_module_and_package_has_its_tests():
    """Modules of tfbn have a file, or several that begin with their name; each package has a folder."""
    for package, folder in (("tfbn", "."), ("compat", "compat")):
        for path in (ROOT / package).glob("*/__init__.py"):
            name = path.parent.name
            assert files_of_tests(f"{folder}/{TESTS_OF.get(name, name)}"), path.parent
    tested = [path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")]
    for path in (ROOT / "tfbn").glob("*.py"):
        name = path.stem
        found = any(name == other or other.startswith(f"{name}_") for other in tested)
        assert found or name in TESTED_ELSEWHERE | {"__init__"}, path
    assert not list((ROOT / "tests" / "helpers").rglob("test_*.py"))


def test_files_of_tests_stay_small():
    for path in modules("tests"):
        assert path.read_text().count("\n") <= 400, path


def test_the_map_names_each_module_once():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = text[text.index("```\ntfbn/") :].split("```")[1]
    listed, folder = [], ""
    for line in block.splitlines():
        if found := re.match(r"((?:tfbn|compat)[\w/]*/)(\s|$)", line):
            folder = found[1]
        elif found := re.match(r"  (\w+\.py) ", line):
            listed.append(folder + found[1])
        elif not line.startswith(" "):
            folder = ""
    modules_of_all = [*modules("tfbn"), *modules("compat")]
    wanted = {str(path.relative_to(ROOT)) for path in modules_of_all if path.stem != "__init__"}
    assert sorted(listed) == sorted(wanted)
