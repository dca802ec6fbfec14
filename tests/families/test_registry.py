"""The registry of families: complete when it is imported, and in the order of the page."""

import dataclasses

import pytest

from distillery.families import FAMILIES, STUDENTS, TRAINED, by_name
from distillery.families.base import Part
from distillery.families.facts import Texts, complete
from distillery.families.names import in_order, label
from distillery.families.teacher import TEACHER
from distillery.families.unet import UNET
from distillery.families.whole import WHOLE


def test_families_stand_in_the_order_of_the_page():
    assert list(FAMILIES) == ["teacher", "whole", "unet", "control", "controlnet", "guidance"]
    assert list(STUDENTS) == list(FAMILIES)[1:]
    assert "whole" not in TRAINED
    models = ["guidance/mine", "unet/elr", "whole/student", "unet/svd_only", "teacher/guided"]
    assert in_order(models) == [
        "teacher/guided", "whole/student", "unet/elr", "unet/svd_only", "guidance/mine",
    ]  # fmt: skip


def test_every_label_is_said_and_others_are_words():
    assert label("unet/elr") == "ELR Stage I"
    assert label("teacher/control_sketch_offset") == "Teacher + ControlNet, sketch, other noise"
    assert label("unet/my_own") == "my own"
    assert label("teacher/guided", "controlnet") == "Teacher, uncontrolled"


def test_a_number_at_the_end_stays():
    assert label("unet/planned_50") == "Planned for latency, 50"
    assert label("unet/own_2") == "own 2"


def test_what_is_forgotten_is_noticed_before_anything_runs():
    with pytest.raises(ValueError, match="two families of one name"):
        by_name(UNET, UNET)
    with pytest.raises(ValueError, match=r"distillery\.families\.lost lacks FACTS"):
        complete({"lost": UNET})
    with pytest.raises(ValueError, match="family teacher: is trained; give its FACTS shown"):
        complete({"teacher": dataclasses.replace(TEACHER, stage="x", variants_key="x.variants")})
    with pytest.raises(ValueError, match="family unet: is trained; give variants_key"):
        dataclasses.replace(UNET, variants_key=None)
    with pytest.raises(ValueError, match="Texts: lede is empty"):
        Texts("Title", "", "Menu", {"a": "A"}, str)


def test_parts_are_named_by_the_settings():
    settings = {"backbone": "unet/elr", "guidance": "lora", "controlnet": "small"}
    named = {part.option: part.model(settings) for part in WHOLE.builds_on}
    assert named == {
        "model": "guidance/lora", "backbone": "unet/elr", "controlnet": "controlnet/small",
    }  # fmt: skip
    assert Part("backbone", "base").model({"base": "teacher"}) == "teacher"
    assert WHOLE.draws_with == ["backbone", "controlnet", "conditions"]
    assert FAMILIES["controlnet"].judged_with == ["offset_reference", "conditions"]


def test_the_teachers_own_variants_follow_the_kinds():
    assert TEACHER.variants(["canny"]) == [
        "guided", "unguided", "guided_offset", "control_canny", "control_canny_offset",
    ]  # fmt: skip
