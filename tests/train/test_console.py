"""The command `zfcore`: every command of training and of looking inside under one name."""
import pytest

from train import console


@pytest.mark.parametrize("name", [*console.TRAINING, *console.COMMANDS, "redraw"])
def test_every_command_is_reached_and_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as left:
        console.main([name, "--help"])
    assert not left.value.code and "usage: python -m" in capsys.readouterr().out


@pytest.mark.parametrize("words", ([], ["--help"]))
def test_without_a_command_all_are_listed(words, capsys):
    with pytest.raises(SystemExit):
        console.main(words)
    said = capsys.readouterr().out
    assert all(name in said for name in (*console.TRAINING, *console.COMMANDS, "redraw"))


def test_what_it_is_given_goes_to_the_command(tmp_path, capsys):
    console.main(["train", "--dry-run", "--epochs", "7"])
    said = capsys.readouterr().out
    # as it will be trained
    assert "epochs           7" in said and "the synthetic set, 10 classes\n" in said and "369,962" in said
    with pytest.raises(SystemExit) as left:
        console.main(["redraw", str(tmp_path/"none.h5")])
    assert left.value.code == 2 and "which does not exist" in capsys.readouterr().err
