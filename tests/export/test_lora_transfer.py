"""A LoRA of the teacher on a low-rank student: what is merged, what is lost, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery.cli import main
from distillery.core.errors import DistilleryError
from distillery.export import kohya
from distillery.export.lora_transfer import read_delta, transfer
from distillery.models.load import load_unet
from distillery.models.lora.files import load_lora, save_lora
from distillery.models.lora.layers import add_lora, fuse_lora
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.removed import is_gone, layers_kept, removable_blocks
from export.conftest import unlike_start
from tiny_models import tiny_unet


@pytest.fixture(scope="module")
def lora(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA on the teacher's attention, alpha unlike its rank."""
    unet = add_lora(
        load_unet(project / "models/teacher"), r=4, alpha=6.0, targets="attention", seed=0
    )
    folder = tmp_path_factory.mktemp("lora")
    save_lora(unlike_start(unet), folder)
    return folder / "pytorch_lora_weights.safetensors"


def _added(project: Path, lora: Path) -> dict[str, torch.Tensor]:
    """What the LoRA adds to every weight of the teacher, by PEFT's own merging."""
    plain = load_unet(project / "models/teacher").state_dict()
    fused = fuse_lora(load_lora(load_unet(project / "models/teacher"), lora.parent)).state_dict()
    return {name: weight - plain[name] for name, weight in fused.items()}


def test_with_room_nothing_is_lost(project: Path, lora: Path) -> None:
    made = transfer(lora, project / "models/teacher", project / "models/unet/elr", exact=True)
    assert made.lost < 1e-6
    assert made.num_layers > 10
    before = load_unet(project / "models/unet/elr").to_dense().state_dict()
    after = made.unet.to_dense().state_dict()
    for name, added in _added(project, lora).items():
        torch.testing.assert_close(after[name], before[name] + added, rtol=0, atol=1e-4)


def test_at_the_same_rank_it_is_nearer_than_without(project: Path, lora: Path) -> None:
    student = load_unet(project / "models/unet/elr")
    made = transfer(lora, project / "models/teacher", project / "models/unet/elr")
    assert dict(made.unet.config.ranks) == dict(student.config.ranks)
    assert 0 < made.lost < 1


def test_a_student_with_removed_blocks_takes_what_it_has_layers_for(
    project: Path, lora: Path, tmp_path: Path
) -> None:
    teacher = load_unet(project / "models/teacher")
    gone = [name for name in removable_blocks(teacher) if "attentions" in name][:1]
    student = factorise_unet(teacher, plan_ranks_but(teacher, gone),
                                                     removed=gone)[0]  # fmt: skip
    student.save_pretrained(tmp_path / "s")
    made = transfer(lora, project / "models/teacher", tmp_path / "s", exact=True)
    added = _added(project, lora)
    lost = {name for name, delta in added.items() if delta.any() and is_gone(name, gone)}
    assert lost
    share = sum(added[n].square().sum() for n in lost) / sum(
        d.square().sum() for d in added.values()
    )
    assert made.lost == pytest.approx(float(share), rel=1e-3)
    assert list(made.unet.config.removed) == gone
    before, after = student.merged_state(), made.unet.merged_state()
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight + added[name], rtol=0, atol=1e-4)


def plan_ranks_but(unet, gone: list[str]) -> dict[str, int]:
    return layers_kept(plan_ranks(unet), gone)


def test_kohyas_names_are_read_too(project: Path, lora: Path, tmp_path: Path) -> None:
    unet = load_lora(load_unet(project / "models/teacher"), lora.parent)
    path = kohya.write(
        unet, tmp_path / "k.safetensors", name="x", base_model="y", prediction_type="epsilon"
    )
    own, others = (read_delta(file, project / "models/teacher") for file in (lora, path))
    assert own.keys() == others.keys()
    for name, delta in own.items():
        torch.testing.assert_close(others[name], delta)


def test_the_command_writes_a_student(project: Path, lora: Path, tmp_path: Path, capsys) -> None:
    for name in ("lean", "elr"):  # one has blocks removed
        student, out = (project / "models/unet" / n for n in (name, f"{name}_style"))
        with pytest.raises(SystemExit) as ended:
            main(["lora-transfer", str(lora), str(student), str(out)])
        assert not ended.value.code
        assert "had no room" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["generate", str(out), "--prompt", "x", "--steps", "1", "--size", "64",
              "--out", str(tmp_path / "images"), "--params", "params.yaml"])  # fmt: skip
    assert (tmp_path / "images/00000.png").is_file()


def test_the_command_refuses_in_one_line(project: Path, lora: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "made").mkdir()
    (tmp_path / "made/manifest.json").touch()
    for file, student, out, reason in (
        (tmp_path / "text.safetensors", "unet/elr", "out", "no LoRA here"),
        (tmp_path / "lost.safetensors", "unet/elr", "out", "not there; give the LoRA's"),
        (project / "models/guidance/lora_distill_elr", "unet/elr", "out", "loads on that student"),
        (project / "models/unet/elr", "unet/elr", "out", "no LoRA here; give"),
        (lora, "controlnet/loha", "out", "StudentControlNet is no U-Net known here"),
        (lora, "guidance/lora_distill", "out", "no U-Net here"),
        (lora, "unet/elr", "made/out", "which its stage checks and replaces"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(
                ["lora-transfer", str(file), str(project / "models" / student), str(tmp_path / out)]
            )
        assert ended.value.code == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert reason in said[0]
        assert not (tmp_path / "out").exists()


def test_a_student_that_names_no_teacher_is_refused(
    project: Path, lora: Path, tmp_path: Path, capsys
) -> None:
    student = tmp_path / "unet/alone"
    shutil.copytree(project / "models/unet/elr", student)
    told = json.loads((student / "student.json").read_text())
    (student / "student.json").write_text(json.dumps({**told, "builds_on": {}}))
    with pytest.raises(SystemExit) as ended:
        main(["lora-transfer", str(lora), str(student), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "names no teacher; rerun the model's stage" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(project: Path, lora: Path, tmp_path: Path) -> None:
    teacher = project / "models/teacher"
    with pytest.raises(DistilleryError, match="a dense U-Net takes LoRAs as they are"):
        transfer(lora, teacher, teacher)
    with pytest.raises(DistilleryError, match=r"no LoRA here"):
        read_delta(tmp_path / "lost.safetensors", teacher)
    wider = tiny_unet(block_out_channels=(64, 128))
    save_lora(add_lora(wider, r=4, alpha=4.0, targets="attention", seed=0), tmp_path)
    with pytest.raises(DistilleryError, match="no LoRA of"):
        read_delta(tmp_path / "pytorch_lora_weights.safetensors", teacher)


def test_halves_and_damage_are_refused(project: Path, lora: Path, tmp_path: Path) -> None:
    whole, path = load_file(lora), tmp_path / "x.safetensors"
    first = next(key for key in sorted(whole) if ".lora_A." in key)
    second = first.replace(".lora_A.", ".lora_B.")
    for changed, reason in (
        ({first: None}, "1 of 2 factors"),
        ({second: None}, "1 of 2 factors"),
        ({key: None for key in whole if ".lora_B." in key}, "1 of 2 factors"),
        ({first: whole[first][:2]}, r"ranks \[2, 4\]"),
        ({first: whole[first] * torch.nan}, "holds no finite floats"),
        ({first: whole[first].to(torch.int8)}, "holds no finite floats"),
        ({first.replace("lora_A.weight", "dora_scale"): torch.ones(1)}, "1 dora_scale can't be"),
    ):
        kept = {key: value for key, value in (whole | changed).items() if value is not None}
        save_file({key: value.contiguous() for key, value in kept.items()}, path)
        with pytest.raises(DistilleryError, match=reason):
            read_delta(path, project / "models/teacher")
