"""Recipes: what the shipped ones say, what is refused and where, and that flags win."""

from pathlib import Path

import pytest

from xt.core.errors import XtError
from xt.train import recipes

KNOWN = (
    "encoder intermediate mlm target contrastive image_text steps epochs target_steps target_epochs batch micro_tokens "
    "learning_rate head_learning_rate warmup weight_decay max_length sampling cap sampling_temperature "
    "freeze_embeddings lora_rank pool_layer precision evaluate_every dev_limit patience seed group_by_length"
).split()


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "own.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refused(path_or_name: str) -> XtError:
    """The error of loading."""
    with pytest.raises(XtError) as caught:
        recipes.load_recipe(path_or_name, KNOWN)
    return caught.value


def test_the_paper_recipe_is_that_of_the_paper() -> None:
    assert recipes.load_recipe("paper", KNOWN) == {
        "encoder": "xlm-roberta-large",
        "intermediate": "anli+ mnli qqp squad-v2 squad-v1 hellaswag ccg cosmosqa commonsenseqa".split(),
        "epochs": 3,
        "batch": 32,
        "micro_tokens": 4096,
        "learning_rate": 1e-5,
        "head_learning_rate": 1e-5,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "max_length": 256,
        "sampling": "capped",
        "cap": 2**17,
        "freeze_embeddings": False,
        "precision": "bf16",
        "evaluate_every": 1000,
        "dev_limit": 500,
        "patience": 30,
    }


def test_the_small_recipe_is_for_two_cores() -> None:
    assert recipes.load_recipe("paper-small", KNOWN) == {
        "encoder": "multilingual-e5-small",
        "intermediate": ["sick", "rte", "mrpc", "cosmosqa", "commonsenseqa", "xquad-en"],
        "steps": 300,
        "batch": 16,
        "learning_rate": 5e-5,
        "head_learning_rate": 1e-3,
        "max_length": 128,
        "sampling": "capped",
        "cap": 2000,
        "freeze_embeddings": True,
    }


def test_every_value_of_the_paper_recipe_says_where_it_is_from() -> None:
    lines = recipes.find("paper").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line[:1].isalpha()]
    assert len(values) == 17
    sources = ("[code]", "[xtreme]", "[unverified]", "[xt]")
    assert [line for line in values if not any(source in line for source in sources)] == []
    assert "arXiv 2005.13013" in "".join(lines)


@pytest.mark.parametrize("name", recipes.shipped())
def test_a_shipped_recipe_can_be_shown_and_read_again(name: str, write) -> None:
    settings = recipes.load_recipe(name, KNOWN)
    text = recipes.show(settings)
    again = recipes.load_recipe(write(text), KNOWN)
    assert again == settings and list(again) == list(settings)
    assert recipes.show(again) == text


def test_two_recipes_are_shipped() -> None:
    assert recipes.shipped() == ["paper", "paper-small"]
    assert recipes.find("paper.yaml") == recipes.find("paper")


def test_a_wrong_name_lists_the_shipped_recipes() -> None:
    error = refused("papper")
    assert error.message == "Unknown recipe 'papper'. Did you mean paper or paper-small?"
    assert "Known: paper, paper-small." in error.hint and "./papper.yaml" in error.hint


def test_a_path_without_a_file_is_said_to_be_one() -> None:
    assert refused("./none.yaml").message == "No recipe at ./none.yaml."


def test_a_path_is_read_also_when_its_name_is_that_of_a_shipped_recipe(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "paper.yaml").write_text("batch: 7\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert recipes.load_recipe("./paper.yaml", KNOWN) == {"batch": 7}


def test_an_unknown_setting_names_its_line_and_the_near_match(write) -> None:
    error = refused(write("batch: 16\n\nlearning_rat: 1e-5\n"))
    assert "own.yaml, line 3: Unknown setting 'learning_rat'. Did you mean learning_rate" in error.message
    assert "warmup" in error.hint


def test_all_that_is_wrong_is_said_at_once(write) -> None:
    error = refused(write("bach: 16\nsteps: 3\nsteps: 4\nencoder: {name: e5}\nintermediate: [[sick]]\n"))
    lines = error.message.splitlines()
    assert [line.split("own.yaml, ")[1].split(". Did")[0] for line in lines] == [
        "line 1: Unknown setting 'bach'",
        "line 3: steps is given a second time, after line 2.",
        "line 4: encoder is neither a value nor a list of values.",
        "line 5: intermediate is neither a value nor a list of values.",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("batch: 16\nsteps: [1, 2\nseed: 0\n", 3), ("batch: 16\n\tsteps: 3\n", 2), ("encoder: a: b\n", 1)],
)
def test_wrong_yaml_names_its_line(text: str, line: int, write) -> None:
    assert f"own.yaml, line {line} is not YAML: " in refused(write(text)).message


@pytest.mark.parametrize(("text", "found"), [("- sick\n- rte\n", "a list"), ("\nsick\n", "a single value")])
def test_a_recipe_that_is_no_table_is_refused(text: str, found: str, write) -> None:
    assert refused(write(text)).message.endswith(f"expected `name: value`, found {found}.")


@pytest.mark.parametrize(
    "text", ["encoder: !!python/name:os.system\n", "encoder: !!python/object/apply:os.getcwd []\n"]
)
def test_a_recipe_cannot_run_anything(text: str, write) -> None:
    assert "is not YAML" in refused(write(text)).message


def test_bytes_that_are_no_text_are_refused(write) -> None:
    assert "is not UTF-8 text (byte 9)" in refused(write(b"encoder: \xff\n")).message


def test_an_empty_recipe_gives_no_settings(write) -> None:
    assert recipes.load_recipe(write("# nothing\n"), KNOWN) == {}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("2E3", 2000.0),
        ("16", 16),
        ("false", False),
        ("e5", "e5"),
        ("[1e-5, a]", [1e-5, "a"]),
    ],
)
def test_values_are_read_as_they_look(written: str, read: object, write) -> None:
    value = recipes.load_recipe(write(f"seed: {written}\n"), KNOWN)["seed"]
    assert value == read and type(value) is type(read)


def test_given_flags_win_and_lists_replace() -> None:
    recipe = {"encoder": "a", "intermediate": ["mnli", "qqp"], "batch": 32, "freeze_embeddings": True, "warmup": 0.1}
    flags = {"intermediate": ["sick"], "batch": None, "freeze_embeddings": False, "warmup": 0.0, "mlm": [], "seed": 3}
    assert recipes.merge(recipe, flags) == {
        "encoder": "a",
        "intermediate": ["sick"],
        "batch": 32,
        "freeze_embeddings": False,
        "warmup": 0.0,
        "seed": 3,
    }
    assert recipe["intermediate"] == ["mnli", "qqp"]


@pytest.mark.parametrize(
    ("given", "aside"), [("steps", "epochs"), ("epochs", "steps"), ("target_steps", "target_epochs")]
)
def test_a_flag_for_steps_puts_the_recipes_epochs_aside(given: str, aside: str) -> None:
    assert recipes.merge({aside: 3, "batch": 2}, {given: 5}) == {"batch": 2, given: 5}
    assert recipes.merge({aside: 3, "batch": 2}, {given: None}) == {aside: 3, "batch": 2}


def test_show_writes_tuples_paths_and_small_numbers_so_that_they_are_read_again(write) -> None:
    settings = {"encoder": Path("models/e5"), "intermediate": ("sick", "rte"), "learning_rate": 1e-5, "steps": None}
    text = recipes.show(settings)
    assert text == "encoder: models/e5\nintermediate:\n- sick\n- rte\nlearning_rate: 1.0e-05\nsteps: null\n"
    read = recipes.load_recipe(write(text), KNOWN)
    assert read == {"encoder": "models/e5", "intermediate": ["sick", "rte"], "learning_rate": 1e-5, "steps": None}
    assert recipes.show({}) == ""


def test_a_list_that_two_settings_share_is_written_twice() -> None:
    both = ("sick", "rte")
    text = recipes.show({"intermediate": both, "target": both})
    assert text == "intermediate:\n- sick\n- rte\ntarget:\n- sick\n- rte\n"
