# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoint models: what they refuse, in which words, and what they put on the wire."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from blender_trellis.endpoints import generate, get, models, prices
from blender_trellis.endpoints.base import STAGES
from blender_trellis.endpoints.schema import carry_over, schemas
from blender_trellis.errors import EndpointError, ParameterError
from harness import REPOSITORY

SAMPLING = (
    "guidance_strength",
    "guidance_rescale",
    "guidance_interval_start",
    "guidance_interval_end",
    "sampling_steps",
    "rescale_t",
)
TEXTURE_KEYS = {f"tex_slat_{name}" for name in SAMPLING}
STAGE_KEYS = TEXTURE_KEYS | {
    f"{prefix}_{name}" for prefix in ("ss", "shape_slat") for name in SAMPLING
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
DELIVERY = {"queue_priority", "start_timeout", "expiration_duration_seconds", "webhook_url"}
TRELLIS_2_KEYS = {"seed"} | STAGE_KEYS | MESH_KEYS
LOCAL_TEXTURE_KEYS = {
    "multi_image",
    "texture_lora_path",
    "texture_lora_scale",
    "texture_format",
}
KEYS = {
    "local/draft": {"seed", "resolution", "texture_size", "decimation_target"},
    "local/trellis-2": TRELLIS_2_KEYS
    | LOCAL_TEXTURE_KEYS
    | {
        f"{part}_lora_{what}"
        for part in ("sparse_structure", "geometry")
        for what in ("path", "scale")
    }
    | {"pipeline_type", "max_num_tokens", "untextured"},
    "local/trellis-2/retexture": {"seed", "resolution", "texture_size"}
    | TEXTURE_KEYS
    | LOCAL_TEXTURE_KEYS,
    "fal-ai/trellis-2": TRELLIS_2_KEYS | DELIVERY,
    "fal-ai/trellis-2-lora": {"seed", "resolution", "texture_size", "decimation_target"}
    | STAGE_KEYS
    | DELIVERY
    | {"sparse_structure_lora_url", "geometry_lora_url", "texture_lora_url"},
    "fal-ai/trellis": FIRST_KEYS | DELIVERY,
    "fal-ai/trellis/multi": FIRST_KEYS | DELIVERY | {"multiimage_algo"},
    "fal-ai/trellis-2/multi": TRELLIS_2_KEYS | DELIVERY,
    "fal-ai/trellis-2/retexture": {"seed", "resolution", "texture_size"} | TEXTURE_KEYS | DELIVERY,
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


def test_endpoints_are_found_in_the_order_of_their_definition() -> None:
    assert list(models()) == list(KEYS)


def test_the_schema_says_what_an_endpoint_takes_beside_pictures() -> None:
    about = {
        name: (schema["references"], schema["mesh"], schema["unconfirmed"])
        for name, schema in schemas().items()
    }
    assert about == {
        "local/draft": ([], False, False),
        "local/trellis-2": ([], False, False),
        "local/trellis-2/retexture": ([], True, False),
        "fal-ai/trellis-2": (["url"], False, False),
        "fal-ai/trellis-2-lora": (["url"], False, False),
        "fal-ai/trellis": (["url"], False, False),
        "fal-ai/trellis/multi": (["url"], False, False),
        "fal-ai/trellis-2/multi": (["url"], False, True),
        "fal-ai/trellis-2/retexture": (["url"], True, False),
        "runware/trellis-2": (["url", "uuid"], False, False),
    }


def test_how_many_pictures_and_what_their_order_says() -> None:
    about = {
        name: (schema["images"]["key"], schema["images"]["maximum"], schema["images"]["views"])
        for name, schema in schemas().items()
        if schema["service"] == "local"
    }
    assert about == {
        "local/draft": ("image_urls", 4, ["front", "right", "back", "left"]),
        "local/trellis-2": ("image_urls", 8, []),
        "local/trellis-2/retexture": ("image_urls", 8, []),
    }
    assert {name for name, schema in schemas().items() if schema["images"]["views"]} == {
        "local/draft"
    }


def test_local_trellis_2_takes_what_fal_takes_with_the_same_defaults() -> None:
    for endpoint in ("trellis-2", "trellis-2/retexture"):
        ours, theirs = (
            schemas()[f"{service}/{endpoint}"]["properties"] for service in ("local", "fal-ai")
        )
        assert theirs.keys() - DELIVERY <= ours.keys()
        for name in theirs.keys() - DELIVERY:
            assert ours[name]["default"] == theirs[name]["default"], name
            for edge in ("minimum", "maximum", "enum"):
                if edge in theirs[name]:
                    assert ours[name][edge] == theirs[name][edge], (name, edge)


def test_fal_trellis_2_has_thirty_input_keys() -> None:
    body_keys = KEYS["fal-ai/trellis-2"] - DELIVERY
    assert len(body_keys | {"image_url"}) == 30


def test_every_parameter_says_all_there_is_to_say() -> None:
    for name, schema in schemas().items():
        for wire, prop in schema["properties"].items():
            assert prop["stage"] in STAGES, (name, wire)
            assert prop["title"] and prop["description"] and prop["source"], (name, wire)
            assert len(prop["title"]) <= 11, (name, wire, "too long for a 250 px sidebar")
            if prop.get("type") in ("integer", "number") and prop["name"] != "seed":
                effect = re.search(r"\b(higher|lower|more|less|each)\b", prop["description"])
                assert effect, (name, wire, "what does a higher value do?")
            assert "unit" in prop and "default" in prop, (name, wire)
            assert not prop["description"].endswith("."), (name, wire, "Blender adds the full stop")


def test_generated_files_equal_the_models() -> None:
    assert generate.FILE.read_text(encoding="utf-8") == generate.schema_json()
    pages = generate.pages()
    assert {path.stem for path in pages} == {"local", "fal", "runware"}
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text


def test_the_page_of_a_service_holds_its_own_endpoints_and_prices_alone() -> None:
    for service in ("local", "fal", "runware"):
        text = generate.tables(service)
        for name, model in models().items():
            assert (f"### `{name}`\n" in text) == (model.service == service)
            assert (f"\n| `{name}` | " in text) == (
                model.service == service and name in prices.PRICES
            )


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
        (
            "local/trellis-2",
            {"pipeline_type": "1536"},
            "pipeline_type must be 512, 1024, 1024_cascade or 1536_cascade, not '1536'.",
        ),
        ("local/trellis-2", {"pipeline_type": None}, "pipeline_type must be 512, 1024"),
        (
            "local/trellis-2",
            {"max_num_tokens": 0},
            "max_num_tokens must be a whole number from 4096 to 262144 tokens, not 0.",
        ),
        ("local/trellis-2", {"multi_image": "mean"}, "must be stochastic or average, not 'mean'."),
        ("local/trellis-2", {"texture_format": "jpg"}, "texture_format must be png or webp"),
        ("local/trellis-2", {"untextured": "?"}, "untextured must be true or false, not '?'."),
        ("local/trellis-2", {"geometry_lora_path": ""}, "geometry_lora_path must be a file's path"),
        ("local/trellis-2", {"texture_lora_scale": 4.1}, "must be a number from 0 to 4, not 4.1."),
        (
            "local/trellis-2",
            {"uv_unwrap_angle_threshold_deg": 0},
            "must be a number from 1 to 180 degrees, not 0.",
        ),
        (
            "local/trellis-2",
            {"ss_guidance_interval_start": 1, "ss_guidance_interval_end": 0.9},
            "ss_guidance_interval_end must be at least",
        ),
        (
            "local/trellis-2/retexture",
            {"resolution": 1536},
            "resolution must be 512 or 1024 voxels",
        ),
        ("local/trellis-2/retexture", {"untextured": True}, "has no parameter 'untextured'."),
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
            "fal-ai/trellis",
            {"webhook_url": "http://example.com"},
            "webhook_url must be an https URL, not 'http://example.com'.",
        ),
        (
            "fal-ai/trellis",
            {"start_timeout": 1},
            "start_timeout must be a number greater than 1 seconds, not 1.",
        ),
        ("fal-ai/trellis", {"queue_priority": "high"}, "queue_priority must be normal or low, not"),
        (
            "fal-ai/trellis-2/retexture",
            {"resolution": 1536},
            "resolution must be 512 or 1024 voxels",
        ),
        (
            "fal-ai/trellis-2/retexture",
            {"tex_slat_guidance_interval_end": 0.1},
            "tex_slat_guidance_interval_end must be at least tex_slat_guidance_interval_start",
        ),
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


def test_an_unknown_endpoint_names_the_one_that_was_meant_or_all() -> None:
    with pytest.raises(EndpointError, match=r"Did you mean local/draft\?"):
        get("local/drat")
    with pytest.raises(EndpointError, match="local/draft, local/trellis-2"):
        get("something else")


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
    assert request.headers() == {"X-Fal-Queue-Priority": "normal"}
    assert request.query() == {}


@pytest.mark.parametrize("endpoint", ["fal-ai/trellis/multi", "fal-ai/trellis-2/multi"])
def test_several_images_are_a_list_even_when_there_is_one(endpoint: str) -> None:
    request = get(endpoint).parse({"seed": 7})
    assert request.body(["a", "b"])["image_urls"] == ["a", "b"]
    assert request.body(["a"])["image_urls"] == ["a"]
    assert "image_url" not in request.body(["a"])


def test_headers_and_query_of_fal_are_not_in_the_body() -> None:
    request = get("fal-ai/trellis").parse(
        {
            "seed": 7,
            "queue_priority": "low",
            "start_timeout": 90.5,
            "expiration_duration_seconds": 3600,
            "webhook_url": "https://example.com/done?secret=1",
        }
    )
    assert request.body(["a"]) == {
        "image_url": "a",
        "seed": 7,
        "mesh_simplify": 0.95,
        "texture_size": 1024,
    }
    assert request.headers() == {
        "X-Fal-Queue-Priority": "low",
        "X-Fal-Request-Timeout": "90.5",
        "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 3600}',
    }
    assert request.query() == {"fal_webhook": "https://example.com/done?secret=1"}


def test_retexture_sends_a_mesh_and_a_picture() -> None:
    request = get("fal-ai/trellis-2/retexture").parse({"seed": 7, "tex_slat_sampling_steps": 20})
    assert request.body(["u"], "https://example.com/chair.glb") == {
        "image_url": "u",
        "mesh_url": "https://example.com/chair.glb",
        "seed": 7,
        "resolution": 1024,
        "texture_size": 2048,
        "tex_slat_sampling_steps": 20,
    }
    with pytest.raises(EndpointError, match="retexture needs a mesh: give one"):
        request.body(["u"])
    with pytest.raises(EndpointError, match="fal-ai/trellis-2 takes no mesh: leave it out"):
        get("fal-ai/trellis-2").parse({}).body(["u"], "https://example.com/chair.glb")


def test_the_local_endpoints_take_pictures_as_a_list_and_the_mesh_beside_it() -> None:
    request = get("local/trellis-2").parse({"seed": 7, "pipeline_type": "1024", "untextured": True})
    assert request.body(["a"]) == {
        "image_urls": ["a"],
        "seed": 7,
        "resolution": 1024,
        "texture_size": 2048,
        "decimation_target": 500_000,
        "pipeline_type": "1024",
        "untextured": True,
    }
    request = get("local/trellis-2/retexture").parse({"seed": 7, "multi_image": "average"})
    assert request.body(["a", "b"], "data:model/gltf-binary;base64,") == {
        "image_urls": ["a", "b"],
        "mesh_url": "data:model/gltf-binary;base64,",
        "seed": 7,
        "resolution": 1024,
        "texture_size": 2048,
        "multi_image": "average",
    }


def test_a_pipeline_that_reads_as_a_number_is_taken() -> None:
    for value in (1024, "1024"):
        assert (
            get("local/trellis-2").parse({"pipeline_type": value}).body(["a"])["pipeline_type"]
            == "1024"
        )
    for value in (True, 1024.0, 1536):
        with pytest.raises(ParameterError, match="pipeline_type must be 512, 1024, 1024_cascade"):
            get("local/trellis-2").parse({"pipeline_type": value})


def test_the_request_that_runware_publishes() -> None:
    def stage(guidance: float, rescale: float, rescale_t: float) -> dict[str, float]:
        return {
            "steps": 12,
            "guidanceStrength": guidance,
            "guidanceRescale": rescale,
            "rescaleT": rescale_t,
        }

    stages = {
        "sparseStructure": stage(7.5, 0.7, 5),
        "shapeSlat": stage(7.5, 0.5, 3),
        "texSlat": stage(1, 0, 3),
    }
    given = {
        f"settings.{name}.{key}": value
        for name, values in stages.items()
        for key, value in values.items()
    }
    request = get("runware/trellis-2").parse({"seed": 424242} | given)
    assert request.body(["data:image/png;base64,iVBORw0"]) == {
        "taskType": "3dInference",
        "model": "microsoft:trellis-2@4b",
        "outputType": "URL",
        "outputFormat": "GLB",
        "deliveryMethod": "async",
        "includeCost": True,
        "numberResults": 1,
        "seed": 424242,
        "inputs": {"image": "data:image/png;base64,iVBORw0"},
        "settings": {
            "resolution": 1024,
            "decimationTarget": 500_000,
            "remesh": True,
            "textureSize": 2048,
            **stages,
        },
    }
    assert request.headers() == {} and request.query() == {}


def test_runware_leaves_undocumented_defaults_out() -> None:
    request = get("runware/trellis-2").parse(
        {"seed": 2**40, "settings.texSlat.steps": 20, "numberResults": 3, "ttl": 3600}
    )
    uuid = "989b4c3e-0000-4000-8000-000000000000"
    assert request.body([uuid]) == {
        "taskType": "3dInference",
        "model": "microsoft:trellis-2@4b",
        "outputType": "URL",
        "outputFormat": "GLB",
        "deliveryMethod": "async",
        "includeCost": True,
        "numberResults": 3,
        "ttl": 3600,
        "seed": 2**40,
        "inputs": {"image": uuid},
        "settings": {
            "resolution": 1024,
            "decimationTarget": 500_000,
            "remesh": True,
            "textureSize": 2048,
            "texSlat": {"steps": 20},
        },
    }


def test_one_body_does_not_change_the_next() -> None:
    request = get("runware/trellis-2").parse({"seed": 1})
    first = request.body(["u"])
    first["model"] = first["settings"]["resolution"] = "changed"
    assert request.body(["u"])["model"] == "microsoft:trellis-2@4b"
    assert request.body(["u"])["settings"]["resolution"] == 1024


def test_every_endpoint_has_a_price_or_is_local() -> None:
    local = {name for name, model in models().items() if model.service == "local"}
    assert prices.PRICES.keys() == models().keys() - local
    for name in local:
        assert prices.estimate(name, {}) is None
    for name, price in prices.PRICES.items():
        assert price.source.startswith("https://") and price.date.startswith("2026-"), name
        assert price.confirmed or price.note, name
        choices = schemas()[name]["properties"].get("resolution", {}).get("enum", [])
        assert list(price.units) == choices, name


@pytest.mark.parametrize(
    ("endpoint", "parameters", "amount"),
    [
        ("fal-ai/trellis-2", {"resolution": 512}, 0.25),
        ("fal-ai/trellis-2", {"resolution": 1024}, 0.30),
        ("fal-ai/trellis-2", {"resolution": 1536}, 0.35),
        ("fal-ai/trellis-2", {}, 0.30),
        ("fal-ai/trellis-2-lora", {}, 0.25),
        ("fal-ai/trellis-2-lora", {"resolution": 1024}, 0.30),
        ("fal-ai/trellis-2/multi", {"resolution": 1024}, 0.30),
        ("fal-ai/trellis-2/retexture", {"resolution": 512}, 0.20),
        ("fal-ai/trellis-2/retexture", {}, 0.24),
        ("fal-ai/trellis", {"texture_size": 2048}, 0.02),
        ("fal-ai/trellis/multi", {}, 0.02),
    ],
)
def test_estimates_at_fal(endpoint: str, parameters: dict[str, object], amount: float) -> None:
    assert prices.estimate(endpoint, parameters) == prices.Estimate(amount, amount, amount, "USD")


def test_estimates_at_runware_are_a_range_for_each_result() -> None:
    assert prices.estimate("runware/trellis-2", {}) == prices.Estimate(0.0256, 0.0198, 0.055, "USD")
    four = prices.estimate("runware/trellis-2", {"numberResults": 4, "settings.resolution": 1536})
    assert four == prices.Estimate(0.1024, 0.0792, 0.22, "USD")


def test_a_price_that_was_asked_for_replaces_the_table() -> None:
    twice = prices.estimate("fal-ai/trellis-2", {"resolution": 1536}, unit_price=0.1)
    assert twice == prices.Estimate(0.7, 0.7, 0.7, "USD")
    free = prices.estimate("fal-ai/trellis-2", {}, unit_price=0.0)
    assert free == prices.Estimate(0.0, 0.0, 0.0, "USD")
    known = prices.estimate("runware/trellis-2", {"numberResults": 2}, unit_price=0.03)
    assert known == prices.Estimate(0.06, 0.06, 0.06, "USD")


def test_the_charge_follows_from_the_units_that_fal_counted() -> None:
    assert prices.charge("fal-ai/trellis-2", 6) == 0.30
    assert prices.charge("fal-ai/trellis-2", 6.5, unit_price=0.04) == 0.26
    assert prices.charge("fal-ai/trellis", 0) == 0


def test_recorded_values_make_the_same_request_again() -> None:
    for name, model in models().items():
        lora = {"texture_lora_url": "https://example.com/t"} if "lora" in name else {}
        request = model.parse({"seed": 3} | lora)
        assert model.parse(request.values()) == request
        again, mesh = model.parse(request.values()), "https://example.com/m" * bool(model.mesh_key)
        assert again.body(["u"], mesh) == request.body(["u"], mesh)


def test_switching_endpoint_carries_over_and_clamps_visibly() -> None:
    values = {"seed": 5, "ss_guidance_strength": 0, "texture_size": 4096, "decimation_target": 9000}
    kept, changes = carry_over(values, "fal-ai/trellis-2", "runware/trellis-2")
    assert kept == {
        "seed": 5,
        "settings.sparseStructure.guidanceStrength": 1,
        "settings.textureSize": 4096,
    }
    assert [(each.prop["name"], each.before, each.after) for each in changes] == [
        ("ss_guidance_strength", 0, 1)
    ]
    kept, changes = carry_over(
        {"settings.textureSize": 3072}, "runware/trellis-2", "fal-ai/trellis"
    )
    assert kept == {"texture_size": 2048}
    assert len(changes) == 1
    smoothing = {"uv_unwrap_smooth_strength": 1.6}
    kept, changes = carry_over(smoothing, "fal-ai/trellis-2", "local/trellis-2")
    assert kept == {"uv_unwrap_smooth_strength": 2}
    assert [(each.before, each.after) for each in changes] == [(1.6, 2)]


def test_schema_and_prices_need_no_third_party_module() -> None:
    """Enabling the extension must not pay for pydantic."""
    code = (
        "import sys; before = set(sys.modules); "
        "import blender_trellis.endpoints.schema as s; s.schemas(); "
        "from blender_trellis.endpoints import prices; prices.estimate('fal-ai/trellis', {}); "
        "import json; print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    loaded = set(json.loads(out.stdout)) - set(sys.stdlib_module_names)
    assert loaded == {"blender_trellis"}
