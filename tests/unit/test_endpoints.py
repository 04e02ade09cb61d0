# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoint models: what they refuse, in which words, and what they put on the wire."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from harness import REPOSITORY

from blender_trellis.endpoints import generate, get, models
from blender_trellis.endpoints.base import STAGES
from blender_trellis.endpoints.schema import carry_over, schemas
from blender_trellis.errors import EndpointError, ParameterError

STAGE_KEYS = {
    f"{prefix}_{name}"
    for prefix in ("ss", "shape_slat", "tex_slat")
    for name in (
        "guidance_strength",
        "guidance_rescale",
        "guidance_interval_start",
        "guidance_interval_end",
        "sampling_steps",
        "rescale_t",
    )
}
MESH_KEYS = {
    "resolution",
    "texture_size",
    "decimation_target",
    "remesh",
    "remesh_band",
    "remesh_project",
    "uv_unwrap_angle_threshold_deg",
    "uv_unwrap_global_iterations",
    "uv_unwrap_refine_iterations",
    "uv_unwrap_smooth_strength",
}
FIRST_KEYS = {
    "seed",
    "ss_guidance_strength",
    "ss_sampling_steps",
    "slat_guidance_strength",
    "slat_sampling_steps",
    "mesh_simplify",
    "texture_size",
}
LIFETIME = {"expiration_duration_seconds"}
KEYS = {
    "local/draft": {"seed", "resolution", "texture_size", "decimation_target"},
    "local/trellis-2": {"seed"} | STAGE_KEYS | MESH_KEYS,
    "fal-ai/trellis": FIRST_KEYS | LIFETIME,
    "fal-ai/trellis/multi": FIRST_KEYS | LIFETIME | {"multiimage_algo"},
    "fal-ai/trellis-2": {"seed"} | STAGE_KEYS | MESH_KEYS | LIFETIME,
    "fal-ai/trellis-2-lora": {"seed", "resolution", "texture_size", "decimation_target"}
    | STAGE_KEYS
    | LIFETIME
    | {"sparse_structure_lora_url", "geometry_lora_url", "texture_lora_url"},
    "runware/trellis-2": {
        "seed",
        "numberResults",
        "outputFormat",
        "deliveryMethod",
        "includeCost",
        "ttl",
        "uploadEndpoint",
        "webhookURL",
    }
    | {f"settings.{name}" for name in ("resolution", "textureSize", "decimationTarget", "remesh")}
    | {
        f"settings.{stage}.{name}"
        for stage in ("sparseStructure", "shapeSlat", "texSlat")
        for name in ("steps", "guidanceStrength", "guidanceRescale", "rescaleT")
    },
}


def test_every_endpoint_knows_exactly_its_documented_parameters() -> None:
    assert {name: set(schema["properties"]) for name, schema in schemas().items()} == KEYS


def test_fal_trellis_2_has_thirty_input_keys() -> None:
    body_keys = KEYS["fal-ai/trellis-2"] - LIFETIME
    assert len(body_keys | {"image_url"}) == 30


def test_every_parameter_says_all_there_is_to_say() -> None:
    for name, schema in schemas().items():
        for wire, prop in schema["properties"].items():
            assert prop["stage"] in STAGES, (name, wire)
            assert prop["title"] and prop["description"] and prop["source"], (name, wire)
            assert len(prop["title"]) <= 17, (name, wire, "too long for a 250 px sidebar")
            assert "unit" in prop and "default" in prop, (name, wire)
            assert not prop["description"].endswith("."), (name, wire, "Blender adds the full stop")


def test_generated_files_equal_the_models() -> None:
    assert generate.FILE.read_text(encoding="utf-8") == generate.schema_json()
    assert generate.DOCS.read_text(encoding="utf-8") == generate.parameter_tables()


def test_schemas_are_json_schema_that_agrees_with_the_models() -> None:
    """What the panel takes for the range is what pydantic enforces."""
    for name, schema in schemas().items():
        lora = {"texture_lora_url": "https://example.com/t"} if "lora" in name else {}
        for wire, prop in schema["properties"].items():
            for edge, step in (("minimum", -1), ("maximum", 1)):
                if edge in prop:
                    both = {
                        wire.replace("_start", "_end"): prop[edge],
                        wire.replace("_end", "_start"): prop[edge],
                    }
                    get(name).parse(both | lora)
                    with pytest.raises(ParameterError):
                        get(name).parse({wire: prop[edge] + step} | lora)
            for choice in prop.get("enum", ()):
                get(name).parse({wire: choice} | lora)


@pytest.mark.parametrize(
    ("endpoint", "values", "words"),
    [
        (
            "local/draft",
            {"resolution": 700},
            "resolution must be 512, 1024 or 1536 pixels, not 700.",
        ),
        (
            "local/draft",
            {"texture_sice": 1},
            "has no parameter 'texture_sice'. Did you mean texture_size?",
        ),
        ("local/draft", {"qqq": 1}, "It knows seed, resolution, texture_size, decimation_target."),
        (
            "local/draft",
            {"decimation_target": 10},
            "a whole number from 5000 to 2000000 vertices, not 10.",
        ),
        ("fal-ai/trellis-2", {"ss_sampling_steps": 51}, "from 1 to 50 steps, not 51."),
        (
            "fal-ai/trellis-2",
            {"ss_guidance_strength": float("nan")},
            "a number from 0 to 10, not nan.",
        ),
        ("fal-ai/trellis-2", {"remesh": "perhaps"}, "remesh must be true or false, not 'perhaps'."),
        (
            "fal-ai/trellis-2",
            {"seed": -1},
            "seed must be a whole number from 0 to 2147483647, not -1.",
        ),
        ("fal-ai/trellis-2-lora", {}, "needs at least one of sparse_structure_lora_url"),
        ("fal-ai/trellis-2-lora", {"resolution": 1536}, "resolution must be 512 or 1024 voxels"),
        ("runware/trellis-2", {"settings.texSlat.steps": 0}, "settings.texSlat.steps must be"),
        (
            "runware/trellis-2",
            {"ss_guidance_strength": 0},
            "settings.sparseStructure.guidanceStrength must be",
        ),
        ("runware/trellis-2", {"webhookURL": "ftp://x"}, "webhookURL must be an http(s) URL"),
        (
            "fal-ai/trellis-2",
            {"tex_slat_guidance_interval_start": 0.95},
            "tex_slat_guidance_interval_end must be at least tex_slat_guidance_interval_start, but 0.9",
        ),
    ],
)
def test_refusals_are_in_words(endpoint: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        get(endpoint).parse(values)
    assert words in str(caught.value)


def test_unknown_endpoint_names_the_known_ones() -> None:
    with pytest.raises(EndpointError, match="local/draft, local/trellis-2"):
        get("local/drat")


def test_what_was_not_changed_is_not_sent() -> None:
    request = get("fal-ai/trellis-2").parse({"seed": 7, "ss_sampling_steps": 12, "remesh": False})
    assert request.body(["u"]) == {
        "image_url": "u",
        "seed": 7,
        "resolution": 1024,
        "texture_size": 2048,
        "decimation_target": 500_000,
        "remesh": False,
    }
    assert request.headers() == {}


def test_several_images_and_a_lifetime() -> None:
    request = get("fal-ai/trellis/multi").parse({"seed": 7, "expiration_duration_seconds": 3600})
    assert request.body(["a", "b"]) == {
        "image_urls": ["a", "b"],
        "seed": 7,
        "mesh_simplify": 0.95,
        "texture_size": 1024,
    }
    assert request.headers() == {
        "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 3600}'
    }


def test_runware_nests_and_leaves_undocumented_defaults_out() -> None:
    request = get("runware/trellis-2").parse(
        {"seed": 2**40, "settings.texSlat.steps": 20, "settings.texSlat.rescaleT": 2.5}
    )
    assert request.body(["u"]) == {
        "inputs": {"image": "u"},
        "seed": 2**40,
        "settings": {
            "resolution": 1024,
            "textureSize": 2048,
            "decimationTarget": 500_000,
            "texSlat": {"steps": 20, "rescaleT": 2.5},
        },
    }


def test_recorded_values_make_the_same_request_again() -> None:
    for name, model in models().items():
        lora = {"texture_lora_url": "https://example.com/t"} if "lora" in name else {}
        request = model.parse({"seed": 3} | lora)
        assert model.parse(request.values()) == request
        assert model.parse(request.values()).body(["u"]) == request.body(["u"])


def test_switching_endpoint_carries_over_and_clamps_visibly() -> None:
    values = {"seed": 5, "ss_guidance_strength": 0, "texture_size": 4096, "decimation_target": 9000}
    kept, notes = carry_over(values, "fal-ai/trellis-2", "runware/trellis-2")
    assert kept == {
        "seed": 5,
        "settings.sparseStructure.guidanceStrength": 1,
        "settings.textureSize": 4096,
    }
    assert notes == ["Guidance: 0 became 1, the nearest it takes."]
    kept, notes = carry_over({"settings.textureSize": 3072}, "runware/trellis-2", "fal-ai/trellis")
    assert kept == {"texture_size": 2048}
    assert len(notes) == 1


def test_the_schema_needs_no_third_party_module() -> None:
    """Enabling the extension must not pay for pydantic."""
    code = (
        "import sys; before = set(sys.modules); "
        "import blender_trellis.endpoints.schema as s; s.schemas(); "
        "import json; print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    loaded = set(json.loads(out.stdout)) - set(sys.stdlib_module_names)
    assert loaded == {"blender_trellis"}
