# SPDX-License-Identifier: GPL-3.0-or-later
"""Other languages: nothing that people read is left out, and what rooms below the interface say is found in their sentences.

Blender as a Python module is built without languages: that Blender shows the words is seen in `tests/window/languages.py`.
"""

import ast
import re
import string

import bpy
import pytest

import words
from blender_trellis.endpoints.schema import unknown_endpoint
from blender_trellis.errors import TrellisError
from blender_trellis.generation.job import Event, State
from blender_trellis.ui import properties, text, translations

LANGUAGES = pytest.mark.parametrize("language", translations.LANGUAGES)


@LANGUAGES
def test_all_words_of_the_interface_are_translated_and_no_others(language):
    known = translations.words(language)
    assert words.interface() - known.keys() == set()
    assert known.keys() - words.interface() == set()


@LANGUAGES
def test_all_sentences_of_the_other_rooms_are_translated_and_no_others(language):
    whole, every = words.sentences()
    known = translations.words(language, ".errors")
    assert whole - known.keys() - translations.words(language).keys() == set()
    assert known.keys() - every == set()


@LANGUAGES
@pytest.mark.parametrize("kind", ["", ".errors"])
def test_a_translation_has_the_values_that_the_english_has(language, kind):
    known = translations.words(language, kind)
    assert known
    for english, translated in known.items():
        assert translated.strip(), english
        assert words.places(english) == words.places(translated), english
        translated.format(**dict.fromkeys(words.places(english), "x"))  # else a brace is wrong


@LANGUAGES
def test_words_of_several_scripts_are_not_mixed_up(language):
    """A line pasted into the other language's file: Chinese has no kana."""
    kana = list(map(chr, range(0x3041, 0x30FB)))
    for kind in ("", ".errors"):
        told = "".join(translations.words(language, kind).values())
        assert any(each in told for each in kana) == (language == "ja_JP")


def test_nothing_is_reported_or_put_together_without_being_translated():
    """Blender translates literals of labels, but neither reports nor reasons why something is grey; and no f-string."""
    wrong = []
    for path in sorted((words.PACKAGE / "ui").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            told = {"report": node.args[1:], "poll_message_set": node.args}.get(node.func.attr, [])
            shown = [
                each.value for each in node.keywords if each.arg in ("text", "title", "message")
            ]
            wrong += [
                f"{path.name}:{node.lineno}" for each in told if isinstance(each, ast.Constant)
            ]
            wrong += [
                f"{path.name}:{node.lineno}"
                for each in (*told, *shown)
                if _mixes_words_and_values(each)
            ]
    assert wrong == []


def _mixes_words_and_values(node):
    if not isinstance(node, ast.JoinedStr):
        return False
    fixed = "".join(str(each.value) for each in node.values if isinstance(each, ast.Constant))
    return any(each in string.ascii_letters for each in fixed)


@LANGUAGES
def test_blender_is_told_all_that_its_own_registry_has_of_ours(extension, language):
    told = {text for _, text in translations.catalogue(language)} | words.NAMES
    classes = [getattr(bpy.types, name) for name in dir(bpy.types) if name.startswith("TRELLIS_")]
    operators = [getattr(bpy.ops.trellis, name).get_rna_type() for name in dir(bpy.ops.trellis)]
    assert len(classes) > 20 and len(operators) > 30
    missing = {text for rna in operators for text in (rna.name, rna.description)}
    for cls in (*classes, *operators):
        rna = getattr(cls, "bl_rna", cls)
        base = {each.identifier for each in rna.base.properties} if rna.base else set()
        base |= {"name"} if rna.identifier == "TRELLIS_OT_preset_add" else set()  # Blender's
        missing |= {getattr(cls, "bl_label", ""), getattr(cls, "bl_description", "")}
        for prop in rna.properties:
            if prop.identifier in base or prop.is_hidden:
                continue
            missing |= {prop.name, prop.description}
            for item in getattr(prop, "enum_items_static", ()):
                missing |= {item.name, item.description}
    english = {text for text in missing - told if any(map(str.isalpha, text))}
    assert {text for text in english if not _is_a_name(text)} == set()


def _is_a_name(text):
    """Of a format, a file, an endpoint, a LOD: what has no translation."""
    return bool(re.fullmatch(r"GLB|PNG|WebP|CPU|AMD|NVIDIA|LOD \d|\d+(_cascade)?|[a-z0-9_]+", text))


@LANGUAGES
def test_blender_is_told_the_tooltips_of_all_parameters_as_they_are_put_together(language):
    told = translations.catalogue(language)
    for endpoint, group in properties.GROUPS.items():
        bpy.utils.register_class(group)
        try:
            for _, prop in properties.parameters_of(endpoint):
                rna = group.bl_rna.properties[prop["name"]]
                shown = told["*", rna.description]
                assert shown != rna.description and not shown.partition("\n")[0].isascii(), shown
                assert ("*", rna.name) in told and (rna.translation_context, rna.name) in told
                if isinstance(rna, bpy.types.EnumProperty):
                    for item in rna.enum_items:
                        number = item.name.partition("_")[0].isdigit()
                        assert (
                            number
                            or item.name in ("GLB", "PNG", "WebP")
                            or ("*", item.name) in told
                        )
        finally:
            bpy.utils.unregister_class(group)


def test_an_error_is_said_with_its_values():
    said = translations.said
    assert (
        said("ja_JP", "There is no image C:/a {b}.png. Check the path.")
        == "画像 C:/a {b}.png がありません。パスを確認してください。"
    )
    assert (
        said("zh_HANS", "There is no image /家/a.png. Check the path.")
        == "没有图像 /家/a.png。请检查路径。"
    )


def test_a_value_that_is_a_sentence_itself_is_said_too():
    error = TrellisError("The service delivered a broken GLB: it holds no mesh. Generate again.")
    assert (
        translations.said("ja_JP", str(error))
        == "サービスの GLB が壊れています：メッシュがありません。もう一度生成してください。"
    )
    error.request_id = "7f-1"
    assert translations.said("ja_JP", str(error)).endswith("（リクエスト 7f-1）")


def test_a_wrong_endpoint_is_said_with_the_one_that_was_meant():
    told = translations.said("zh_HANS", unknown_endpoint("local/daft").message)
    assert "local/draft" in told and told.isascii() is False and "Did you" not in told


@pytest.mark.parametrize(
    ("english", "japanese"),
    [
        (
            "fal refuses the request: Locked. Why: Balance. Nothing was charged. Change the request.",
            "fal がリクエストを拒否しました：Locked。Why: Balance. 課金されていません。 リクエストを変更してください。",
        ),
        (
            "It was charged all the same, about $0.25. Change image_url.",
            "それでも課金されました（約 $0.25）。 image_url を変更してください。",
        ),
        (
            "Cancelled. If fal had begun already, it may finish the job and charge it.",
            "キャンセルしました。 fal がすでに始めていた場合、ジョブを終えて課金することがあります。",
        ),
        (
            "Runware cannot be reached (Name or service not known); nothing was sent or charged. Check the connection.",
            "Runware に接続できません（Name or service not known）。何も送信されず、課金もされていません。"
            "接続を確認してください。",
        ),
        (
            "fal answered 500: cannot read … there.",
            "fal の応答 500：cannot read … there。",
        ),
    ],
)
def test_several_sentences_and_a_services_own_words_are_told_apart(english, japanese):
    assert translations.said("ja_JP", english) == japanese


@LANGUAGES
def test_places_that_are_taken_as_one_are_so_in_both_languages(language):
    for pair in translations.words(language, ".errors").items():
        sentence = translations._Sentence(*pair)
        assert set(sentence.parts[1::2]) == {*words.places(sentence.translation)}, pair


def test_what_nobody_knows_is_said_in_english_and_the_rest_is_not():
    assert translations.said("ja_JP", "Ninety-nine balloons.") == "Ninety-nine balloons."
    assert translations.said("ja_JP", "") == ""
    told = translations.said("ja_JP", "Ninety-nine balloons. Generate again.")
    assert told == "Ninety-nine balloons. もう一度生成してください。"
    assert translations.said("de_DE", "Generate again.") == "Generate again."


def test_what_is_missing_is_said_as_it_is_and_as_an_error():
    missing = "Set the key for fal in the preferences"
    assert translations.said("ja_JP", missing) == "プリファレンスで fal のキーを設定してください"
    assert (
        translations.said("ja_JP", f"{missing}.")
        == "プリファレンスで fal のキーを設定してください。"
    )


def test_a_list_of_states_is_said():
    told = translations.said("ja_JP", "512: ready, all resolutions: 7.3 GB missing")
    assert told == "512: 完了, すべての解像度: 7.3 GB 不足"


@LANGUAGES
def test_all_that_a_job_tells_on_its_way_is_said(extension, until, asked, language):
    view = extension.board.views[asked]
    until(lambda: not view.at_work)
    told = [line.partition(" ")[2] for line in view.log]
    assert len(told) > 5 and not view.error
    assert [line for line in told if translations.said(language, line).isascii()] == []


def test_how_long_it_will_take_is_said():
    left = Event("id", State.RUNNING, eta=3720.0).left
    assert translations.said("zh_HANS", left) == "剩余 1 小时 2 分钟"


def test_lines_break_between_characters_and_not_before_a_mark():
    told = "画像がありません。パスを確認してください。" * 3
    lines = text._lines(told, 120, 11.0)
    assert len(lines) > 3 and "".join(lines) == told
    assert not any(line[0] in text._NOT_FIRST for line in lines)
    english = text._lines("one two  three\nfour", 10_000, 11.0)
    assert english == ("one two three", "four")


def test_nothing_is_left_with_blender_after_disabling(extension):
    assert translations._told
    translations.unregister()
    assert not translations._told
    translations.unregister()  # nothing to be done
    translations.follow()
    assert translations._told == [bpy.app.translations.locale]
