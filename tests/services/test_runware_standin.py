# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in of Runware, proven with Runware's own Python SDK; and what that SDK does not touch, asked directly."""

from __future__ import annotations

import asyncio
import base64
import io
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from runware import RunOptions, Runware, RunwareError

from services.runware_standin import BALANCE, KEY, MODEL, RunwareStandIn
from services.standin import Reply

GLB = b"glTF" + bytes(range(200))
TIMEOUT = {"code": "timeoutProvider", "message": "The external provider did not respond."}
BROKEN = {"code": "inferenceError", "message": "This variation failed."}


def _picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(out, kind)
    return out.getvalue()


IMAGE = f"data:image/png;base64,{base64.b64encode(_picture()).decode()}"


def _task(kind: str = "3dInference", **more: Any) -> dict[str, Any]:
    """A task of its own UUID; 3dInference is complete but for what a test is about."""
    task = {"taskType": kind, "taskUUID": str(uuid.uuid4())}
    if kind == "3dInference":
        task |= {"model": MODEL, "inputs": {"image": IMAGE}, "seed": 7, "includeCost": True}
    return {**task, **more}


@pytest.fixture
def runware() -> Iterator[RunwareStandIn]:
    standin = RunwareStandIn()
    standin.glb = GLB
    with standin:
        yield standin


# Runware's own SDK ------------------------------------------------------------------------------------------------------

Official = Callable[[Callable[[Runware], Awaitable[Any]]], Any]


@pytest.fixture
def official(runware: RunwareStandIn) -> Official:
    """Runs something with the SDK over REST; the address is a setting of its own."""

    def run(work: Callable[[Runware], Awaitable[Any]], key: str = KEY) -> Any:
        async def main() -> Any:
            async with Runware(
                api_key=key, transport="rest", http_base_url=runware.base, retry_delay=0
            ) as client:
                return await work(client)

        return asyncio.run(main())

    return run


def _refused(official: Official, work: Callable[[Runware], Awaitable[Any]], **more: Any) -> Any:
    with pytest.raises(RunwareError) as caught:
        official(work, **more)
    return caught.value


def test_the_sdk_runs_a_task_to_its_end(runware: RunwareStandIn, official: Official) -> None:
    task = _task(settings={"resolution": 1024, "texSlat": {"guidanceStrength": 1}})
    (result,) = official(lambda client: client.run(task))
    assert (result["taskUUID"], result["seed"], result["cost"]) == (task["taskUUID"], 7, 0.0256)
    (file,) = result["outputs"]["files"]
    assert httpx.get(file["url"]).content == GLB
    assert runware.submits == [{**task, "deliveryMethod": "async"}]
    taken = runware.tasks[task["taskUUID"]]
    assert (taken.state, taken.polls, taken.files) == ("success", 2, [file["uuid"]])


@pytest.mark.parametrize("dribble", [False, True])
def test_the_sdk_collects_every_variation(
    runware: RunwareStandIn, official: Official, dribble: bool
) -> None:
    runware.script.processing = 0
    runware.script.dribble = dribble
    told: list[dict[str, Any]] = []
    task = _task(numberResults=2)
    results = official(lambda client: client.run(task, RunOptions(on_result=told.append)))
    assert [result["seed"] for result in results] == [7, 8]
    assert told == results
    assert runware.tasks[task["taskUUID"]].polls == (2 if dribble else 1)


def test_the_sdk_gets_a_synchronous_result_at_once(
    runware: RunwareStandIn, official: Official
) -> None:
    results = official(lambda client: client.run(_task(deliveryMethod="sync", numberResults=2)))
    assert [result["seed"] for result in results] == [7, 8]
    assert not any("status" in result for result in results)
    assert len(runware.calls) == 1


def test_the_sdk_is_told_of_an_invalid_parameter(
    runware: RunwareStandIn, official: Official
) -> None:
    task = _task(settings={"decimationTarget": 20_000})
    error = _refused(official, lambda client: client.run(task))
    assert (error.code, error.status_code) == ("validation", 400)
    assert error.parameter == "settings.decimationTarget"
    assert error.task_uuid == task["taskUUID"]
    assert "between 100000 and 1000000" in error.message
    assert not runware.tasks


def test_the_sdk_is_told_of_an_invalid_key(official: Official) -> None:
    error = _refused(official, lambda client: client.run(_task()), key="rw_wrong")
    assert (error.code, error.status_code, error.parameter) == ("auth", 401, "apiKey")


def test_the_sdk_is_told_of_a_task_that_failed(runware: RunwareStandIn, official: Official) -> None:
    runware.script.error = TIMEOUT
    task = _task()
    error = _refused(official, lambda client: client.run(task))
    assert error.status_code is None  # it came with 200
    assert (error.message, error.task_uuid) == (TIMEOUT["message"], task["taskUUID"])
    assert runware.tasks[task["taskUUID"]].state == "error"


@pytest.mark.parametrize("item_errors", [False, True])
def test_the_sdk_is_told_of_a_variation_that_failed(
    runware: RunwareStandIn, official: Official, item_errors: bool
) -> None:
    runware.script.processing = 0
    runware.script.failed = {1: BROKEN}
    runware.script.item_errors = item_errors
    error = _refused(official, lambda client: client.run(_task(numberResults=2)))
    assert (error.code, error.message) == ("provider", BROKEN["message"])


def test_the_sdk_reads_the_account(runware: RunwareStandIn, official: Official) -> None:
    def ask(client: Runware) -> Awaitable[Any]:
        return client.account_management({"operation": "getDetails"})

    (details,) = official(ask)
    assert details["balance"] == {"amount": BALANCE, "currency": "USD", "freeBalance": 0}
    runware.script.balance_object = False
    assert official(ask)[0]["balance"] == BALANCE


def test_the_sdk_uploads_uses_and_deletes(runware: RunwareStandIn, official: Official) -> None:
    async def work(client: Runware) -> Any:
        (stored,) = await client.media_storage({"operation": "upload", "media": IMAGE})
        (older,) = await client.image_upload({"image": IMAGE})
        kept = dict(runware.uploads)
        assert httpx.get(stored["mediaURL"]).content == _picture()
        await client.run(_task(inputs={"image": stored["mediaUUID"]}, deliveryMethod="sync"))
        for media in (stored["mediaUUID"], older["imageUUID"]):
            await client.media_storage({"operation": "delete", "mediaUUID": media})
        return kept, [stored["mediaUUID"], older["imageUUID"]]

    kept, named = official(work)
    assert kept == dict.fromkeys(named, _picture())
    assert not runware.uploads


def test_the_sdk_reads_the_archive(runware: RunwareStandIn, official: Official) -> None:
    task = _task(deliveryMethod="sync")

    async def work(client: Runware) -> Any:
        results = await client.run(task)
        return results, await client.get_task_details({"taskUUID": task["taskUUID"]})

    results, (details,) = official(work)
    assert (details["request"], details["response"]) == ([task], {"data": results})


def test_the_sdk_asks_again_where_it_is_refused_once(
    runware: RunwareStandIn, official: Official
) -> None:
    busy = {"errors": [{"code": "rateLimitExceeded", "message": "The queue is full."}]}
    runware.instead["3dInference"] = [Reply(429, busy)]
    official(lambda client: client.run(_task(deliveryMethod="sync")))
    assert [call.json[0]["taskType"] for call in runware.calls] == ["3dInference"] * 2
    assert len(runware.tasks) == 1


def test_the_sdk_passes_over_what_it_does_not_know(
    runware: RunwareStandIn, official: Official
) -> None:
    runware.script.extra = True
    runware.script.word = "waitingForGPU"
    (result,) = official(lambda client: client.run(_task()))
    assert {"addedLater", "outputs"} <= result.keys()


# Asked directly ---------------------------------------------------------------------------------------------------------

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(runware: RunwareStandIn) -> Iterator[Ask]:
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}) as client:
        yield lambda *tasks, **more: client.post(runware.base, json=list(tasks), **more)


def _poll(ask: Ask, task: dict[str, Any]) -> dict[str, Any]:
    reply = ask({"taskType": "getResponse", "taskUUID": task["taskUUID"]})
    assert reply.status_code == 200
    return dict(reply.json())


def test_an_acknowledgement_names_the_task_once(ask: Ask) -> None:
    task = _task(numberResults=4)
    names = {"taskType": "3dInference", "taskUUID": task["taskUUID"]}
    assert ask(task).json() == {"data": [names]}
    answer = _poll(ask, task)
    assert [item["status"] for item in answer["data"]] == ["processing"] * 4


def test_a_finished_task_looks_as_documented(ask: Ask, runware: RunwareStandIn) -> None:
    task = _task(includeCost=False, ttl=600)
    ask(task)
    _poll(ask, task)
    (file,) = runware.tasks[task["taskUUID"]].files
    url = f"{runware.url('files')}/image/os/a01d21/ws/4/ii/{file}.glb"
    names = {"taskType": "3dInference", "taskUUID": task["taskUUID"]}
    outputs = {"files": [{"uuid": file, "url": url}]}
    finished = {"data": [{**names, "status": "success", "seed": 7, "outputs": outputs}]}
    assert _poll(ask, task) == finished
    assert _poll(ask, task) == finished
    assert runware.tasks[task["taskUUID"]].ttl == 600


def test_a_task_is_held_until_it_is_let_go(ask: Ask, runware: RunwareStandIn) -> None:
    runware.script.held = True
    runware.script.no_status = True
    runware.script.word = "queued"
    task = _task()
    ask(task)
    assert [_poll(ask, task)["data"][0]["status"] for _ in range(4)] == ["queued"] * 4
    runware.finish(task["taskUUID"])
    (item,) = _poll(ask, task)["data"]
    assert "outputs" in item
    assert "status" not in item


def test_a_script_is_copied_when_a_task_is_submitted(ask: Ask, runware: RunwareStandIn) -> None:
    runware.script.failed[0] = BROKEN
    task = _task()
    ask(task)
    runware.script.failed.clear()
    runware.script.held = True
    _poll(ask, task)
    names = {"taskType": "3dInference", "taskUUID": task["taskUUID"]}
    assert _poll(ask, task) == {"data": [], "errors": [{"status": "error", **names, **BROKEN}]}


def test_variations_come_one_by_one_and_stay(ask: Ask, runware: RunwareStandIn) -> None:
    runware.script.processing = 0
    runware.script.dribble = True
    runware.script.index = False
    task = _task(numberResults=3)
    ask(task)
    answers = [_poll(ask, task)["data"] for _ in range(4)]
    assert [[item.get("seed") for item in answer] for answer in answers] == [
        [None, None, 7],
        [None, 7, 8],
        [7, 8, 9],
        [7, 8, 9],
    ]
    assert answers[2] == answers[3]
    assert answers[0][-1] == answers[2][0]
    assert not any("resultIndex" in item for answer in answers for item in answer)


@pytest.mark.parametrize("item_errors", [False, True])
def test_a_variation_that_failed_leaves_the_others(
    ask: Ask, runware: RunwareStandIn, item_errors: bool
) -> None:
    runware.script.processing = 0
    runware.script.failed = {0: BROKEN}
    runware.script.item_errors = item_errors
    task = _task(numberResults=2)
    ask(task)
    answer = _poll(ask, task)
    names = {"taskType": "3dInference", "taskUUID": task["taskUUID"]}
    if item_errors:
        failed, made = answer["data"]
        assert failed == {**names, "resultIndex": 0, "status": "error", "error": BROKEN}
        assert "errors" not in answer
    else:
        (made,) = answer["data"]
        assert answer["errors"] == [{"status": "error", **names, **BROKEN}]
    assert (made["seed"], made["status"]) == (8, "success")
    assert runware.tasks[task["taskUUID"]].state == "success"


def test_a_task_cannot_be_submitted_twice(ask: Ask, runware: RunwareStandIn) -> None:
    task = _task()
    assert ask(task).status_code == 200
    again = ask(task)
    assert again.status_code == 400
    (error,) = again.json()["errors"]
    assert (error["code"], error["taskUUID"]) == ("conflictTaskUUID", task["taskUUID"])
    assert runware.submits == [task]


def test_a_refused_task_may_come_again_mended(ask: Ask, runware: RunwareStandIn) -> None:
    task = _task()
    assert ask({**task, "numberResults": 5}).status_code == 400
    assert ask(task).status_code == 200
    assert runware.submits == [task]


def test_an_unknown_task_is_not_found(ask: Ask) -> None:
    for kind in ("getResponse", "getTaskDetails"):
        reply = ask(_task(kind))
        (error,) = reply.json()["errors"]
        assert (reply.status_code, error["code"]) == (404, "taskFailedOrNotFound")


def test_a_dry_run_tells_the_cost_and_stores_nothing(ask: Ask, runware: RunwareStandIn) -> None:
    dry = {"x-runware-dry-run": "1"}
    task = _task(numberResults=2)
    names = {"taskType": "3dInference", "taskUUID": task["taskUUID"]}
    assert ask(task, headers=dry).json() == {"data": [{**names, "cost": 0.0512}]}
    assert ask({**task, "ttl": 1}, headers=dry).status_code == 400
    assert ask(_task("imageUpload", image=IMAGE), headers=dry).json()["data"][0]["cost"] == 0
    assert (runware.tasks, runware.submits, runware.uploads) == ({}, [], {})
    assert ask(task).status_code == 200


def test_an_upload_can_be_used_until_it_is_deleted(ask: Ask, runware: RunwareStandIn) -> None:
    stored = ask(_task("mediaStorage", operation="upload", media=IMAGE)).json()["data"][0]
    media = stored["mediaUUID"]
    assert runware.uploads == {media: _picture()}
    assert ask(_task(inputs={"image": media})).status_code == 200
    assert ask(_task("mediaStorage", operation="delete", mediaUUID=media)).status_code == 200
    (error,) = ask(_task(inputs={"image": media})).json()["errors"]
    assert error["parameter"] == "inputs.image"
    assert ask(_task("mediaStorage", operation="delete", mediaUUID=media)).status_code == 404


@pytest.mark.parametrize(
    "image",
    [
        "https://studio.example/a.png",
        *(base64.b64encode(_picture(kind)).decode() for kind in ("JPEG", "WEBP", "GIF", "BMP")),
    ],
)
def test_an_image_may_be_a_url_or_bare_base64(ask: Ask, image: str) -> None:
    assert ask(_task(inputs={"image": image})).status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        "",
        str(uuid.uuid4()),
        "file:///tmp/a.png",
        "data:image/png;base64,AAAA",
        IMAGE.replace("image/png", "image/jpeg"),
        IMAGE.replace("base64,", "base64,*"),
        base64.b64encode(b"no image").decode(),
    ],
)
def test_anything_else_is_no_image(ask: Ask, image: str) -> None:
    reply = ask(_task(inputs={"image": image}))
    (error,) = reply.json()["errors"]
    assert (reply.status_code, error["parameter"]) == (400, "inputs.image")


@pytest.mark.parametrize(
    ("more", "code", "parameter"),
    [
        ({"model": "microsoft:trellis-1@1"}, "invalidModel", "model"),
        ({"taskUUID": "mine"}, "invalidTaskUUID", "taskUUID"),
        ({"inputs": {}}, "missingImage", "inputs.image"),
        ({"inputs": [IMAGE]}, "invalidInputs", "inputs"),
        ({"outputFormat": "PLY"}, "invalidOutputFormat", "outputFormat"),
        ({"numberResults": 5}, "invalidNumberResults", "numberResults"),
        ({"numberResults": True}, "invalidNumberResults", "numberResults"),
        ({"includeCost": 1}, "invalidIncludeCost", "includeCost"),
        ({"ttl": 59}, "invalidTtl", "ttl"),
        ({"seed": 2**63}, "invalidSeed", "seed"),
        ({"seed": None}, "invalidSeed", "seed"),
        ({"image_url": IMAGE}, "unknownParameter", "image_url"),
        ({"settings": {"resolution": 768}}, "invalidResolution", "settings.resolution"),
        ({"settings": {"resolution": "512"}}, "invalidResolution", "settings.resolution"),
        ({"settings": {"texture_size": 2048}}, "unknownParameter", "settings.texture_size"),
        ({"settings": {"texSlat": {"steps": 12.5}}}, "invalidSteps", "settings.texSlat.steps"),
        ({"settings": {"shapeSlat": {"cfg": 1}}}, "unknownParameter", "settings.shapeSlat.cfg"),
        (
            {"settings": {"sparseStructure": {"guidanceStrength": 0.5}}},
            "invalidGuidanceStrength",
            "settings.sparseStructure.guidanceStrength",
        ),
    ],
)
def test_a_wrong_parameter_is_named(
    ask: Ask, runware: RunwareStandIn, more: dict[str, Any], code: str, parameter: str
) -> None:
    reply = ask(_task(**more))
    assert reply.status_code == 400
    (error,) = reply.json()["errors"]
    assert (error["code"], error["parameter"]) == (code, parameter)
    assert (error["taskType"], runware.submits) == ("3dInference", [])


def test_every_setting_may_be_at_its_bounds(ask: Ask) -> None:
    low = {"steps": 1, "guidanceStrength": 1, "guidanceRescale": 0, "rescaleT": 1}
    high = {"steps": 50, "guidanceStrength": 10, "guidanceRescale": 1, "rescaleT": 6.0}
    for stage, density, seed in ((low, 100_000, 0), (high, 1_000_000, 2**63 - 1)):
        stages = dict.fromkeys(("sparseStructure", "shapeSlat", "texSlat"), stage)
        settings = {"decimationTarget": density, "remesh": False, "textureSize": 3072, **stages}
        task = _task(seed=seed, numberResults=4, ttl=60, outputType="URL", settings=settings)
        assert ask(task).status_code == 200


def test_one_request_may_hold_several_tasks(ask: Ask, runware: RunwareStandIn) -> None:
    good, bad, lost = _task(), _task(ttl=1), _task("getResponse")
    reply = ask(good, bad, lost)
    assert reply.status_code == 200
    answer = reply.json()
    assert [item["taskUUID"] for item in answer["data"]] == [good["taskUUID"]]
    assert [error["taskUUID"] for error in answer["errors"]] == [bad["taskUUID"], lost["taskUUID"]]
    assert [*runware.tasks] == [good["taskUUID"]]


def test_a_request_must_be_an_array_of_tasks(ask: Ask, runware: RunwareStandIn) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    for body in ({}, [], _task(), ["getResponse"]):
        reply = httpx.post(runware.base, json=body, headers=headers)
        assert (reply.status_code, len(reply.json()["errors"])) == (400, 1)
    assert ask(_task("imageInference")).json()["errors"][0]["parameter"] == "taskType"


def test_the_key_may_be_in_the_header_or_come_first(runware: RunwareStandIn) -> None:
    def status(*tasks: dict[str, Any], **headers: str) -> int:
        return httpx.post(runware.base, json=list(tasks), headers=headers).status_code

    entry = {"taskType": "authentication", "apiKey": KEY}
    assert status(entry, _task()) == 200
    assert status(_task(), authorization=f"Bearer {KEY}") == 200
    assert status({**entry, "apiKey": "rw_other"}, _task()) == 401
    assert status(_task(), authorization=KEY) == 401
    assert status(_task()) == 401
    assert len(runware.tasks) == 2


def test_files_are_served_without_the_key_alone(ask: Ask, runware: RunwareStandIn) -> None:
    runware.script.glb = b"glTF of its own"
    (result,) = ask(_task(deliveryMethod="sync")).json()["data"]
    url = result["outputs"]["files"][0]["url"]
    assert httpx.get(url).content == b"glTF of its own"
    assert httpx.get(url, headers={"authorization": f"Bearer {KEY}"}).status_code == 400
    assert httpx.get(url.replace(".glb", "")).status_code == 404
    assert httpx.get(f"{url[:-40]}{uuid.uuid4()}.glb").status_code == 404


def test_prepared_replies_go_to_their_kind_of_task_once(ask: Ask, runware: RunwareStandIn) -> None:
    page = Reply(503, b"<html>Down</html>", {"content-type": "text/html"})
    runware.instead["getResponse"] = [page]
    task = _task()
    assert ask(task).status_code == 200
    reply = ask(_task("getResponse", taskUUID=task["taskUUID"]))
    assert (reply.status_code, reply.headers["content-type"]) == (503, "text/html")
    assert _poll(ask, task)["data"][0]["status"] == "processing"
    assert runware.tasks[task["taskUUID"]].polls == 1
