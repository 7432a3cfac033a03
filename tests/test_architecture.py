"""The layout that CONTRIBUTING.md describes: imports point one way, and every package is installed."""

import ast
import configparser
import re
import sys

import pytest

import tfbn
from paths import ROOT

pytestmark = pytest.mark.checkout

# Each part of the package may import those before it in this list, and nothing after it.
ORDER = [
    "quiet|messages|options|format_names|axes|runtime|arguments|files|compare",
    "room",
    "sums",
    "moments",
    "functional",
    "flat",
    "plain",
    "traced_once",
    "called|compiled",
    "fused",
    "by_size|inference",
    "kernels",
    "layer",
    "renorm",
    "batch_norms",
    "moving_statistics",
    "copying|declared_graph",
    "cloning|recordable",
    "recording",
    "undeclared",
    "opening",
    "data_format",
    "in_place",
    "population|convert|folding",
    "diagnosis|export",
    "callbacks",
    "public",
    "printing",
    "commands",
    "diagnosis_commands|migrate_command",
    "cli_arguments",
    "cli_diagnosis|cli_migrate",
    "cli",
    "__main__",
]
# What may import compat, which imports tfbn.
ABOVE_COMPAT = {"public", "commands", "migrate_command"}
# Of the packages of compat, each with its modules and packages in the same way.
COMPAT_ORDERS = {
    "compat": ["tf1|keras1", "model_files|predictions|migrate", "upgrade|public|run"],
    "compat/keras1": ["arguments|data_flow|initializers", "layer"],
    "compat/migrate": [
        "signs|moved|findings|sources",
        "targets",
        "names|imports",
        "programs|advice|keras_advice",
        "one_file",
        "run",
    ],
    "compat/model_files": ["errors|report", "reading", "layers", "building", "load"],
    "compat/model_files/building": [
        "inputs|order|weight_shapes|assignment|custom",
        "weight_checks",
        "builder",
    ],
    "compat/model_files/layers": [
        "legacy_layers|legacy_wrappers|masks|stored_statistics",
        "config_readers",
        "layer_spec",
        "convolutions|merges|batch_norms|recurrent|wrappers",
        "keras1_specs",
        "keras1_table",
        "keras2_table",
    ],
    "compat/model_files/reading": [
        "heaps|architecture|writer_info",
        "hdf5",
        "archive",
        "tfjs",
        "files",
    ],
    "compat/tf1": [
        "arg_scope|scopes|symbols|bn_variables|keras_tensors|layer",
        "bn_ops",
        "contrib_batch_norm|tf_layers|checkpoints",
        "slim",
        "namespace",
    ],
    "compat/tf1/checkpoints": ["file|names", "values", "load"],
    "compat/tf1/layer": [
        "dimensions|inner_batch_norms|stateless|variable_op|weight_losses",
        "variable_store",
        "moving_averages|program",
        "variable_scope",
    ],
    "compat/tf1/namespace": ["lookup", "modules|programs|enable", "install"],
    "compat/tf1/tf_layers": ["layer", "dense|pooling|batch_norm", "convolution"],
}
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
            assert imported != "compat" or part in ABOVE_COMPAT, f"{path} imports compat"


def test_every_part_has_its_place_in_the_order():
    assert {part_of(path) for path in modules("tfbn")} - {"__init__"} == RANK.keys()


def parts_of(package):
    """The modules and packages in a package, as a list like `ORDER` names them."""
    found = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    return found | {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


def modules_of_compat(path):
    """What a module of compat imports from it, as paths without a suffix."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].relative_to(ROOT)
            base = folder.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                inside = base / alias.name
                is_module = (ROOT / inside).is_dir() or (ROOT / inside).with_suffix(".py").exists()
                yield inside if is_module else base


@pytest.mark.parametrize("package", COMPAT_ORDERS)
def test_imports_within_a_package_of_compat_point_one_way(package):
    ranks = enumerate(COMPAT_ORDERS[package])
    rank = {name: number for number, names in ranks for name in names.split("|")}
    assert parts_of(package) == rank.keys()
    for path in modules(package):
        part = path.relative_to(ROOT / package).with_suffix("").parts[0]
        for module in modules_of_compat(path) if part != "__init__" else ():
            if module.is_relative_to(package):
                assert str(module) != package, f"{path} imports the package that it is in"
                imported = module.relative_to(package).parts[0]
                assert imported == part or rank[imported] < rank[part], f"{path} imports {module}"


def test_every_package_of_compat_has_its_order():
    folders = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "compat").rglob("__init__.py")}
    assert folders == COMPAT_ORDERS.keys()


def test_files_of_models_are_data():
    """Nothing in compat/model_files can run, import or unpack what a file says."""
    for path in modules("compat/model_files"):
        text = path.read_text()
        assert not re.search(
            r"pickle|marshal|importlib|\beval\(|\bexec\(|deserialize|safe_mode", text
        ), path
    folder = ROOT / "compat" / "model_files"
    for path in (
        *modules(folder / "reading"),
        folder / "errors.py",
        folder / "layers/stored_statistics.py",
    ):
        assert "import keras" not in path.read_text(), path


def test_the_core_of_folding_knows_no_framework():
    """NumPy alone, also by way of what it imports of the rest of tfbn."""
    waiting, seen = modules("tfbn/folding/core"), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module)
            if isinstance(node, ast.ImportFrom) and node.level > 0:
                package = path.parents[node.level - 1]
                waiting.append(package / f"{node.module.replace('.', '/')}.py")
            found = {name.split(".")[0] for name in names}
            assert found <= sys.stdlib_module_names | {"numpy"}, f"{path}: {found}"
    assert {path.parent.name for path in seen} == {"core", "tfbn"}


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
    assert found == {"batch_norms.py", "runtime.py"}


def test_autograph_reads_none_of_our_files():
    # It would warn where sources are not at hand, and Keras traces models without it, too.
    for path in modules("tfbn") + modules("compat"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        without = [call.func for call in calls if "autograph=False" in map(ast.unparse, call.keywords)]
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        functions = [node for node in attributes if ast.unparse(node) == "tf.function"]
        assert all(function in without for function in functions), path


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
    """What is marked `both` runs on the checkout and on the wheel, each with its own setting.

    `make test-sweeps` has what is marked `sweep`, and these do not; `make test-kernels` what the wheel's
    run has not.
    """
    makefile = (ROOT / "Makefile").read_text()
    steps = re.search(r"^test:\n((?:\t.*\n)+)", makefile, re.M)[1].replace("\t$(MAKE) ", "").splitlines()
    assert steps[-3:] == ["-j2 checks wheel-installed", "test-checkout", "wheel-tested"]
    switch = re.findall(r"^(\w+-\w+): export TF_ENABLE_ONEDNN_OPTS = ([01])$", makefile, re.M)
    assert dict(switch) == {"test-checkout": "1", "wheel-tested": "0", "test-kernels": "0"}
    selected = re.findall(r'/\$\(PYTEST\)(?: -m "?([a-z ()]+)"?)?', makefile)
    on_the_wheel = "both and not checkout and not sweep"
    the_rest = "(not both or checkout) and not sweep"
    assert selected == ["not sweep", on_the_wheel, "sweep", the_rest, ""]


def test_the_changelog_knows_the_version():
    assert f"## {tfbn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# Tested with what they are parts of: in test_cli, as the command is, in
# test_functional and in test_layer.
TESTED_ELSEWHERE = {"axes", "sums", "arguments", "moving_statistics"}
TESTED_ELSEWHERE |= {"quiet", "printing", "options", "format_names", "commands", "__main__"}
TESTED_ELSEWHERE |= {"cli_arguments", "cli_diagnosis", "cli_migrate", "migrate_command"}


def files_of_tests(folder):
    """The test files of a folder and of those within."""
    return sorted((ROOT / "tests" / folder).rglob("test_*.py"))


def test_every_module_and_package_has_its_tests():
    """Modules of tfbn have a file, or several that begin with their name; each package has a folder."""
    for package, folder in (("tfbn", "."), ("compat", "compat")):
        for path in (ROOT / package).glob("*/__init__.py"):
            name = path.parent.name
            assert files_of_tests(f"{folder}/{name}"), path.parent
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
