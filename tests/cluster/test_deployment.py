"""Cluster files: the committed ones are what the description renders to, and every tool that reads them takes them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from kubernetes import client
from typer.testing import CliRunner

from tests.test_readme import parsed as parsed_line
from tests.test_readme import shell_lines
from vwl.cli.forwarding import Forwarded, forwarded
from vwl.cli.main import app
from vwl.cluster.deployment.render import RENDERERS, render
from vwl.cluster.deployment.schema import Deployment, load_deployment
from vwl.errors import VwlError

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMMITTED = load_deployment(str(DEPLOY / "cluster.yaml"))
VARIANTS = {
    "committed": COMMITTED,
    "defaults": Deployment(),
    "cpus-only": load_deployment(None, ["gpu.count=0", "cpu.count=3"]),
    "everything": load_deployment(
        None,
        [
            "gpu.labels.market=on-demand",
            "gpu.most=8",
            "gpu.gpus=4",
            "kubernetes.storage_class=nfs",
            "slurm.partition=gpu",
            "slurm.account=a",
            "aws.region=us-east-1",
        ],
    ),
}


def parsed(kind: str, deployment: Deployment) -> dict[str, dict]:
    return {name: yaml.safe_load(text) for name, text in render(kind, deployment).items()}


@pytest.fixture(params=VARIANTS)
def deployment(request) -> Deployment:
    return VARIANTS[request.param]


def test_the_script_for_slurm_asks_for_the_signal_five_minutes_before_the_end_and_for_its_log_to_be_kept():
    directives = render("slurm", COMMITTED)["vwl.sbatch"].splitlines()
    assert "#SBATCH --signal=B:USR1@300" in directives
    assert "#SBATCH --open-mode=append" in directives
    assert "#SBATCH --requeue" in directives


@pytest.mark.parametrize("kind", RENDERERS)
def test_the_committed_files_are_what_the_description_renders_to(kind):
    assert {path.name: path.read_text() for path in (DEPLOY / kind).iterdir()} == render(kind, COMMITTED)


def kuberay_schema(kind: str) -> dict:
    schema = json.loads((ROOT / "tests/data/kuberay.schema.json").read_text())
    return {"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]}


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_manifests_have_known_fields_of_the_right_kind(deployment, name):
    manifest = parsed("kuberay", deployment)[name]
    jsonschema.validate(manifest, kuberay_schema(manifest["kind"]))


def test_a_misspelt_field_of_a_manifest_would_be_noticed():
    manifest = parsed("kuberay", COMMITTED)["raycluster.yaml"]
    manifest["spec"]["headGroupSpecs"] = manifest["spec"].pop("headGroupSpec")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, kuberay_schema("RayCluster"))


def through_the_kubernetes_client(value: dict, model: str) -> dict:
    """Read a value as the official client's model and write it again; what the model does not know is lost."""
    api = client.ApiClient(client.Configuration())
    return api.sanitize_for_serialization(api.deserialize(json.dumps(value), model, "application/json"))


def test_pods_and_the_volume_survive_a_round_trip_through_the_kubernetes_client(deployment):
    files = parsed("kuberay", deployment)
    clusters = [files["raycluster.yaml"]["spec"], files["rayjob.yaml"]["spec"]["rayClusterSpec"]]
    pods = [group["template"] for spec in clusters for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    assert len(pods) == 2 * (1 + len(deployment.groups()))
    for pod in pods:
        assert through_the_kubernetes_client(pod, "V1PodTemplateSpec") == pod
    assert through_the_kubernetes_client(files["shared-volume.yaml"], "V1PersistentVolumeClaim") == files["shared-volume.yaml"]


def test_a_misspelt_field_of_a_pod_would_be_noticed():
    pod = parsed("kuberay", COMMITTED)["raycluster.yaml"]["spec"]["headGroupSpec"]["template"]
    pod["spec"]["containers"][0]["volumeMount"] = []
    assert through_the_kubernetes_client(pod, "V1PodTemplateSpec") != pod


def test_all_pods_have_the_token_the_volume_and_their_share(deployment):
    files = parsed("kuberay", deployment)
    spec = files["raycluster.yaml"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert files["rayjob.yaml"]["spec"]["rayClusterSpec"] == spec
    assert files["rayjob.yaml"]["spec"]["shutdownAfterJobFinishes"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups.keys() == deployment.groups().keys()
    for name, nodes in deployment.groups().items():
        (container,) = groups[name]["template"]["spec"]["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == (str(nodes.gpus) if nodes.gpus else None)
        assert {"name": "shared", "mountPath": deployment.shared} in container["volumeMounts"]
        assert (groups[name]["minReplicas"], groups[name]["maxReplicas"]) == (nodes.count, nodes.at_most)


def test_nodes_have_the_labels_of_their_group_and_of_the_description():
    labelled = load_deployment(None, ["gpu.labels.market=on-demand", "cpu.labels.market=spot"])
    wanted = {"gpu": {"group": "gpu", "market": "on-demand"}, "cpu": {"group": "cpu", "market": "spot"}}
    groups = parsed("kuberay", labelled)["raycluster.yaml"]["spec"]["workerGroupSpecs"]
    assert {group["groupName"]: group["labels"] for group in groups} == wanted
    types = parsed("ray-up", labelled)["aws.yaml"]["available_node_types"]
    assert {name: types[name]["labels"] for name in wanted} == wanted
    assert '--labels="group=gpu,market=on-demand" ' in render("slurm", labelled)["vwl.sbatch"]


@pytest.mark.parametrize("label", ["market=a b", "mar ket=spot", "market=$(reboot)"])
def test_a_label_that_ray_would_not_take_is_refused(label):
    with pytest.raises(VwlError, match=r"gpu\.labels: must be labels that Ray takes"):
        load_deployment(None, [f"gpu.labels.{label}"])


@pytest.mark.parametrize("name", ["on-premise.yaml", "aws.yaml"])
def test_ray_takes_the_files_for_ray_up(deployment, name):
    # Ray imports slowly, and its own validation is what counts
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = parsed("ray-up", deployment)[name]
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config | {"worker_count": 3}))


def test_ray_up_files_start_every_node_with_the_token(deployment):
    for config in parsed("ray-up", deployment).values():
        starts = [config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]]
        assert all("RAY_AUTH_MODE=token ray start" in line for line in starts)
        assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


def test_the_script_for_slurm_has_no_complaint_of_shellcheck(deployment, tmp_path):
    script = tmp_path / "vwl.sbatch"
    script.write_text(render("slurm", deployment)["vwl.sbatch"])
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    nodes = deployment.gpu if deployment.gpu.count else deployment.cpu
    assert f"#SBATCH --nodes={nodes.count}" in directives
    assert (f"#SBATCH --gpus-per-node={nodes.gpus}" in directives) == (nodes.gpus > 0)
    assert "%{" not in script.read_text()


def test_the_dockerfile_has_no_complaint_of_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_there_is_and_nothing_else_is_sent():
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {name for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore


README = (DEPLOY / "README.md").read_text()


@pytest.mark.parametrize("line", [line for line in shell_lines(README) if line.startswith("vwl ")])
def test_a_command_of_the_readme_is_understood_with_what_it_hands_on(line):
    params = parsed_line(line)
    if line.startswith("vwl submit"):
        assert Forwarded(params["command"]) == forwarded(params["command"])  # nothing to send along, no relative path


def test_the_script_for_slurm_is_given_a_command_that_is_understood():
    (line,) = (line for line in shell_lines(README) if line.startswith("sbatch "))
    parsed_line(f"vwl {line.partition('vwl.sbatch ')[2]}")


def test_the_job_of_kuberay_is_a_command_that_is_understood():
    parsed_line(parsed("kuberay", COMMITTED)["rayjob.yaml"]["spec"]["entrypoint"])


def test_the_readme_has_five_commands_a_path_and_names_files_that_exist():
    paths = re.split(r"^## ", README, flags=re.MULTILINE)[1:4]
    assert [len(shell_lines(path)) for path in paths] == [5, 5, 5]
    assert all((ROOT / name).exists() for name in re.findall(r"deploy/[\w/-]+\.\w+", README))


def test_unknown_keys_and_values_out_of_range_are_named(tmp_path):
    with pytest.raises(VwlError, match=r"unknown key 'gpu\.cont'; did you mean 'count'.*; slurm\.time "):
        load_deployment(None, ["gpu.cont=2", "slurm.time=soon"])
    with pytest.raises(VwlError, match=r"description .*cluster\.yaml cannot be read"):
        load_deployment(str(tmp_path / "cluster.yaml"))
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(VwlError, match=r"list\.yaml is not a mapping"):
        load_deployment(str(tmp_path / "list.yaml"))
    with pytest.raises(VwlError, match="override 'gpu' is not of the form"):
        load_deployment(None, ["gpu"])
    with pytest.raises(VwlError, match="must not name a host twice"):
        load_deployment(None, ["on_premise.workers=[a,a]"])
    with pytest.raises(VwlError, match="unknown kind of cluster 'kubray', choose from kuberay, ray-up, slurm; did you mean 'kuberay'"):
        render("kubray", Deployment())


@pytest.mark.parametrize("limit", ["00:09:59", "0-00:00:00", "0:05:00"])
def test_a_time_limit_that_leaves_no_time_to_work_before_the_run_saves_is_refused(limit):
    with pytest.raises(VwlError, match=r"slurm\.time must be 10 minutes or more; the run is asked to save 5 before its end"):
        load_deployment(None, [f"slurm.time={limit}"])


@pytest.mark.parametrize("limit", ["00:10:00", "1-00:00:00", "24:00:00"])
def test_a_time_limit_of_ten_minutes_or_more_is_taken(tmp_path, limit):
    assert load_deployment(None, [f"slurm.time={limit}"]).slurm.time == limit
    (tmp_path / "cluster.yaml").write_text(f"slurm: {{time: {limit}}}")
    assert load_deployment(str(tmp_path / "cluster.yaml")).slurm.time == limit


def test_the_command_prints_or_writes(tmp_path):
    printed = CliRunner().invoke(app, ["deploy", "render", "slurm", "--workers", "5", "--gpus", "2"])
    assert printed.exit_code == 0
    assert "#SBATCH --nodes=5" in printed.stdout
    assert "#SBATCH --gpus-per-node=2" in printed.stdout
    arguments = ["deploy", "render", "kuberay", "--out", str(tmp_path / "mine"), "--image", "me/vwl:3", "--cpu-workers", "0"]
    written = CliRunner().invoke(app, arguments)
    assert written.exit_code == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"shared-volume.yaml", "raycluster.yaml", "rayjob.yaml"}
    assert "image: me/vwl:3" in (tmp_path / "mine/rayjob.yaml").read_text()
