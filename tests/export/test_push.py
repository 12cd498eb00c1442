"""Publishing with the real client: one commit, nothing sent twice, nobody overwritten."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clever_export.card import write_card
from clever_export.package import copy_model, package
from clever_hub.files import write_json
from clever_hub.hub.shipped import ZOO
from clever_hub.weights import sha256_of
from tests.hub_server.client import CallFailed, Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User

PUSH = "tests.hub_server.tasks:push"
Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A Hub with a writer, a reader of the same name and a stranger."""
    users = {
        "hf_alice_secret": User("alice", ("acme",)),
        "hf_alice_reads": User("alice", role="read"),
        "hf_bob": User("bob"),
    }
    with HubServer(tmp_path_factory.mktemp("hub") / "server", users) as server:
        yield server


@pytest.fixture(scope="module", params=["xet", "http"])
def alice(
    request: pytest.FixtureRequest, server: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """The publisher's machine, with and without Xet."""
    home, xet = tmp_path_factory.mktemp("alice"), request.param == "xet"
    with Client(home, server.url, "hf_alice_secret", xet=xet, COLUMNS="200") as client:
        yield client


@pytest.fixture(scope="module")
def packaged(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is ready."""
    folder = tmp_path_factory.mktemp("packaged") / "clever-test-resnet"
    shutil.copytree(exported("test_resnet"), folder)
    package(folder)
    digest = sha256_of(folder / "model.safetensors")
    write_json(folder / "verify.json", {"green": True, "weights_sha256": digest})
    return folder


@pytest.fixture
def folder(packaged: Path, server: HubServer, tmp_path: Path) -> Path:
    """A copy, to be changed; nothing goes wrong until a test says so."""
    shutil.copytree(packaged, tmp_path / packaged.name)
    server.faults.clear()
    server.log.clear()
    return tmp_path / packaged.name


@pytest.fixture
def repo(alice: Client, tmp_path: Path) -> str:
    """A name that nobody has used."""
    return f"alice/{tmp_path.name}-{id(alice)}"


def content(server: HubServer, repo: str) -> dict[str, bytes]:
    """What the repository has, but for what the Hub puts there."""
    files = server.hub.repositories[repo].head.files
    return {n: server.hub.store.content(b) for n, b in files.items() if n != ".gitattributes"}


def commits(server: HubServer, repo: str) -> int:
    """How many commits there are after the first."""
    return len(server.hub.repositories[repo].commits) - 1


def states(published: dict[str, Any]) -> list[tuple[str, str]]:
    """What was sent, and why."""
    return [(file["name"], file["state"]) for file in published["sent"]]


def test_the_command_sends_the_folder_in_one_tagged_commit(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    options = ("--repo-id", repo, "--tag", "v1.0")
    assert alice.call("tests.hub_server.tasks:command", "publish", folder, *options) == 0
    sent = content(server, repo)
    assert sent.keys() == {path.name for path in folder.iterdir()}
    same = sent.keys() - {"README.md"}
    assert all(sent[name] == (folder / name).read_bytes() for name in same)
    card = sent["README.md"].decode()
    assert f'clever_hub.from_pretrained("{repo}")' in card
    assert f'timm.create_model("hf-hub:{repo}"' in card
    repository = server.hub.repositories[repo]
    assert commits(server, repo) == 1
    assert repository.tags == {"v1.0": repository.head.oid}
    text = alice.output.read_text()
    assert f'clever_hub.from_pretrained("{repo}", revision="v1.0")' in text
    assert f"at commit {repository.head.oid}, tagged v1.0\n" in text


def test_the_line_to_load_it_works_without_a_tag(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    before = len(alice.output.read_text())
    assert alice.call("tests.hub_server.tasks:command", "publish", folder, "--repo-id", repo) == 0
    shown = alice.output.read_text()[before:]
    found = re.search(r'from_pretrained\("(.*)", revision="(.*)"\)', shown)
    assert found
    source = alice.call("clever_hub.hub.resolve:resolve", found[1], revision=found[2])[1]
    assert source[3] == server.hub.repositories[repo].head.oid
    (folder / "LICENSE").write_text("words")
    options = ("--repo-id", repo, "--tag", "v1.1", "--dry-run")
    assert alice.call("tests.hub_server.tasks:command", "publish", folder, *options) == 0
    assert "1 of 12 files, 5 bytes would be sent, tagged v1.1." in alice.output.read_text()


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_it_says_what_was_checked(
    offline: bool, packaged: Path, tmp_path: Path
) -> None:
    variables: dict[str, Any] = {"HF_HUB_OFFLINE": "1"} if offline else {}
    with (
        Client(tmp_path / "home", "http://127.0.0.1:9", "hf_alice", **variables) as alone,
        pytest.raises(CallFailed) as raised,
    ):
        alone.call("clever_export.push:plan", packaged, "alice/mine")
    said = raised.value.message
    assert raised.value.kind == "HubError"
    assert said.startswith(f"{packaged}: ready to publish: it loads, was verified, has a complete")
    reason = "HF_HUB_OFFLINE is set" if offline else "cannot reach http://127.0.0.1:9"
    assert f"What alice/mine has already could not be asked: {reason}" in said
    assert "a model folder always" not in said


def test_the_same_again_sends_nothing_and_a_change_sends_itself(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    first = alice.call(PUSH, folder, repo)
    server.log.clear()
    again = alice.call(PUSH, folder, repo, tag="v1.0")
    assert (again["commit"], again["sent"]) == (first["commit"], [])
    assert server.paths("PUT") == []
    assert [p for p in server.paths("POST") if "/tag/" not in p] == []
    report = folder / "verify.json"
    report.write_text(report.read_text().replace("true", "true "))
    (folder / "LICENSE").write_text("words")
    changed = alice.call(PUSH, folder, repo, tag="v1.1")
    assert states(changed) == [
        ("LICENSE", "new"),
        ("verify.json", "changed"),
    ]
    (folder / "LICENSE").unlink()
    server.hub.add_files(repo, {"photo.jpg": b"somebody's"})
    gone = alice.call(PUSH, folder, repo)
    assert states(gone) == [("LICENSE", "deleted")]
    assert "photo.jpg" in content(server, repo), "what is not ours stays"
    assert server.hub.repositories[repo].tags == {
        "v1.0": first["commit"],
        "v1.1": changed["commit"],
    }


@pytest.mark.parametrize("when", ["/preupload/", "/commit/"])
def test_somebody_elses_commit_is_not_overwritten(
    when: str, alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    alice.call(PUSH, folder, repo)
    (folder / "LICENSE").write_text("mine")
    other = {"LICENSE": b"theirs"}
    server.fail("POST", when, meanwhile=lambda: server.hub.add_files(repo, other))
    with pytest.raises(CallFailed, match=r"HubError.*(Somebody|somebody) else has committed"):
        alice.call(PUSH, folder, repo)
    assert content(server, repo)["LICENSE"] == b"theirs"


def test_a_commit_whose_answer_got_lost_is_not_made_twice(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    server.fail("POST", "/commit/", lost=True)
    published = alice.call(PUSH, folder, repo, tag="v1.0")
    assert commits(server, repo) == 1
    assert published["commit"] == server.hub.repositories[repo].head.oid
    assert server.hub.repositories[repo].tags == {"v1.0": published["commit"]}


@pytest.mark.parametrize("where", ["/repos/create", "/preupload/", "/commit/", "/tag/"])
def test_trouble_that_passes_is_waited_for(
    where: str, alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    server.fail("POST", where, status=503, times=2)
    alice.call(PUSH, folder, repo, tag="v1.0")
    assert commits(server, repo) == 1


def test_after_a_broken_connection_only_the_rest_is_sent(folder: Path, tmp_path: Path) -> None:
    repo, weights = "alice/broken", sha256_of(folder / "model.safetensors")
    # A server of its own: the other has these weights from other repositories.
    with (
        HubServer(tmp_path / "hub", {"hf_alice_secret": User("alice")}) as server,
        Client(tmp_path / "home", server.url, "hf_alice_secret", xet=False) as client,
    ):
        server.fail("PUT", f"/_lfs/{weights}", status=500, times=50)
        with pytest.raises(CallFailed, match=r"HubError.*500.*Try again later"):
            client.call(PUSH, folder, repo)
        assert commits(server, repo) == 0, "no half version"
        server.faults.clear()
        server.log.clear()
        client.call(PUSH, folder, repo)
    sent = [re.search(r"/_lfs/(\w+)", path) for path in server.paths("PUT")]
    assert [found[1] for found in sent if found] == [weights]
    assert commits(server, repo) == 1


def test_a_dry_run_changes_nothing(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    options = ("--repo-id", repo, "--private", "--dry-run")
    assert alice.call("tests.hub_server.tasks:command", "publish", folder, *options) == 0
    text = alice.output.read_text()
    count = len(list(folder.iterdir()))
    assert f"{repo} would be made, private; {count} of {count} files" in text
    assert "model.safetensors" in text
    assert {entry.method for entry in server.log} == {"GET"}
    assert repo not in server.hub.repositories


def test_private_stays_private(alice: Client, server: HubServer, folder: Path, repo: str) -> None:
    alice.call(PUSH, folder, repo, private=True)
    assert server.hub.repositories[repo].private
    server.hub.repositories[repo].private = False
    with pytest.raises(CallFailed, match=r"is public, and was to be private.*/settings"):
        alice.call(PUSH, folder, repo, private=True)


def test_a_tag_is_never_moved(alice: Client, server: HubServer, folder: Path, repo: str) -> None:
    first = alice.call(PUSH, folder, repo, tag="v1.0")
    assert alice.call(PUSH, folder, repo, tag="v1.0")["commit"] == first["commit"]
    (folder / "LICENSE").write_text("words")
    with pytest.raises(CallFailed, match=r"the tag v1\.0 is taken, by commit .* Choose another"):
        alice.call(PUSH, folder, repo, tag="v1.0")
    assert commits(server, repo) == 1


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("hf_expired_token", "alice/x", r"401.*token is missing, wrong or has expired"),
        ("hf_alice_reads", "alice/x", r"403.*not allow this.*right to write: .*/tokens"),
        ("hf_bob", "alice/x", r"403.*not allow this.*right to write: .*/tokens"),
        ("hf_bob", "just-a-name", "expected the name of a repository, 'user/name'"),
    ],
)
def test_who_may_not_publish_is_told_why_and_no_token_is_shown(
    token: str, repo_id: str, message: str, alice: Client, server: HubServer, folder: Path
) -> None:
    with pytest.raises(CallFailed, match=message) as caught:
        alice.call(PUSH, folder, repo_id, token=token)
    assert ".. " not in caught.value.message, "the Hub's own words may end with a full stop"
    shown = str(caught.value) + alice.output.read_text()
    assert not any(secret in shown for secret in ("hf_expired_token", "hf_alice_secret"))
    assert "alice/x" not in server.hub.repositories


def test_the_command_shows_no_token_when_it_fails(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    server.fail("POST", "/commit/", status=403)
    arguments: list[Any] = ["publish", folder, "--repo-id", repo]
    assert alice.call("tests.hub_server.tasks:command", *arguments) == 1
    text = alice.output.read_text()
    assert "Error:" in text
    assert "hf_alice_secret" not in text


def test_where_files_lie_on_this_machine_is_not_published(
    alice: Client, server: HubServer, folder: Path, repo: str
) -> None:
    typed = "clever-hub evaluate /home/anna/runs/m --data /home/anna/clinic/patients -o ~/measured"
    evaluation = json.loads((ZOO / "clever-resnet18" / "evaluation.json").read_text())
    evaluation["protocols"]["knn"]["command"] = typed
    data = evaluation["protocols"]["knn"]["data"]
    data["train"]["name"] = "/home/anna/clinic/patients/train"
    data["validation"]["name"] = "/home/anna/clinic/patients/val"
    own: dict[str, Any] = {
        "weights_sha256": sha256_of(folder / "model.safetensors"),
        "input_size": 32,
    }
    own["dims"] = {"full": 96, "invariant": 76, "equivariant": 20}
    evaluation["model"] |= own
    write_json(folder / "evaluation.json", evaluation)
    write_card(folder)
    alice.call(PUSH, str(folder), repo)
    sent = content(server, repo)["evaluation.json"].decode()
    assert "anna" not in sent + content(server, repo)["README.md"].decode()
    assert json.loads(sent)["protocols"]["knn"]["data"]["train"]["name"] == "patients/train"
    assert "name: patients/val\n" in content(server, repo)["README.md"].decode()
    assert "--data patients" in sent
    assert json.loads(sent)["figures"] == evaluation["figures"]
    assert states(alice.call(PUSH, str(folder), repo)) == []


def test_an_export_takes_the_licence_along(folder: Path, tmp_path: Path) -> None:
    """Else publishing it would delete the one that is there."""
    (folder / "LICENSE").write_text("of somebody else's weights")
    (tmp_path / "copy").mkdir()
    copy_model(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "LICENSE").read_text() == "of somebody else's weights"
