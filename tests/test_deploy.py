"""Containers and manifests: what must agree between files does, and the images lack nothing that serving imports.

Tests `core/served_encoder.py`, `core/served_head.py`, `core/served_retriever.py`, `core/served_text.py`,
`deploy/gateway.py` and `deploy/health.py` as well.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from xt.cli.main import app
from xt.core import __version__
from xt.serve.runtime.meters import COUNTERS, LABELS
from xt.serve.triton import server_state
from xt.serve.triton.launcher import EXIT_SECONDS, RESTRICTED
from xt.serve.triton.limits import STACK_BYTES
from xt.serve.triton.starting import START_SECONDS

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
NVIDIA_START_SECONDS = 900
"""How long NVIDIA's image may take until its models are ready: TensorRT builds its engines at the first start."""
TRITON_PATHS = {"/v2/health/ready", "/v2/health/live"}


def documents() -> list[dict[str, Any]]:
    """Every object of the manifests, the kustomization aside."""
    return [
        document
        for file in KUBERNETES
        if file.name != "kustomization.yaml"
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in documents() if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def deployments() -> list[dict[str, Any]]:
    return [d for d in documents() if d["kind"] == "Deployment"]


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(deployment)["spec"]["containers"]
    return found


def test_every_kind_that_is_promised_is_there():
    kinds = sorted((d["kind"], d["metadata"]["name"]) for d in documents())
    assert kinds == [
        ("ConfigMap", "xt-adapter"),
        ("Deployment", "xt-gateway"),
        ("Deployment", "xt-triton"),
        ("HorizontalPodAutoscaler", "xt-triton"),
        ("Namespace", "xt"),
        ("NetworkPolicy", "xt-gateway"),
        ("NetworkPolicy", "xt-triton"),
        ("PodDisruptionBudget", "xt-gateway"),
        ("PodDisruptionBudget", "xt-triton"),
        ("PodMonitor", "xt-triton"),
        ("Service", "xt-gateway"),
        ("Service", "xt-triton"),
    ]
    for document in documents():
        assert {"apiVersion", "kind", "metadata"} <= set(document)


def test_the_kustomization_names_every_file_and_no_other():
    listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == [f.name for f in KUBERNETES]


def test_kubectl_builds_the_kustomization():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    answer = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    built = list(yaml.safe_load_all(answer.stdout))
    assert len(built) == len(documents())
    assert {d["metadata"].get("namespace", "xt") for d in built} == {"xt"}


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Deployment"])
def test_every_selector_finds_the_pods_of_its_name(kind):
    labels = {d["metadata"]["name"]: pod(d)["metadata"]["labels"] for d in deployments()}
    found = [d for d in documents() if d["kind"] == kind]
    assert found
    for document in found:
        spec = document["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        selector = selector.get("matchLabels", selector)
        assert selector
        assert selector.items() <= labels[document["metadata"]["name"]].items()
        others = [v for k, v in labels.items() if k != document["metadata"]["name"]]
        assert not any(selector.items() <= v.items() for v in others)


def test_ports_agree_between_containers_services_probes_monitor_and_network():
    for deployment in deployments():
        name = deployment["metadata"]["name"]
        ports = {p["name"]: p["containerPort"] for p in container(deployment)["ports"]}
        for port in one("Service", name)["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            given = container(deployment).get(probe)
            if given:
                assert (given.get("httpGet") or given["tcpSocket"])["port"] in ports
        for rule in one("NetworkPolicy", name)["spec"]["ingress"]:
            assert {p["port"] for p in rule["ports"]} <= set(ports)
    triton = {p["name"]: p["containerPort"] for p in container(one("Deployment", "xt-triton"))["ports"]}
    assert triton == PORTS
    assert {e["port"] for e in one("PodMonitor", "xt-triton")["spec"]["podMetricsEndpoints"]} <= set(triton)
    gateway = {e["name"]: e.get("value") for e in container(one("Deployment", "xt-gateway"))["env"]}
    assert gateway["XT_TRITON_URL"] == f"xt-triton:{triton['grpc']}"
    assert gateway["XT_METRICS_URL"] == f"http://xt-triton:{triton['metrics']}/metrics"


def test_probes_ask_what_triton_answers():
    probed = container(one("Deployment", "xt-triton"))
    paths = {probed[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == TRITON_PATHS
    gateway = container(one("Deployment", "xt-gateway"))
    assert {gateway[p]["httpGet"]["path"] for p in ("readinessProbe", "livenessProbe")} == {"/health"}
    startup = probed["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= NVIDIA_START_SECONDS


def test_a_container_is_not_called_unhealthy_before_its_start_is_given_up():
    periods = re.findall(r"HEALTHCHECK .*--start-period=(\d+)s", (DEPLOY / "Dockerfile").read_text())
    assert [int(seconds) for seconds in periods] == [START_SECONDS, NVIDIA_START_SECONDS]


def test_image_names_are_equal_everywhere():
    services = compose()["services"]
    gpu, cpu = f"xt-triton:{__version__}", f"xt-triton-cpu:{__version__}"
    assert documented_run()[-1] == gpu
    assert services["triton-gpu"]["image"] == container(one("Deployment", "xt-triton"))["image"] == gpu
    for image in (services["triton-cpu"], services["gateway"], container(one("Deployment", "xt-gateway"))):
        assert image["image"] == cpu
    text = (DEPLOY / "Dockerfile").read_text()
    assert f"-t {gpu} ." in text
    assert f"-t {cpu} ." in text


def documented_run() -> list[str]:
    """The words of the `docker run` that docs/deploying.md shows."""
    text = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = [line for line in text.splitlines() if line.startswith("docker run ")]
    return shlex.split(command.replace("$PWD", "/srv"))


def values(words: list[str], flag: str) -> list[str]:
    return [b for a, b in zip(words, words[1:], strict=False) if a == flag]


def test_the_documented_run_has_no_rights_writes_nothing_and_is_for_this_machine_alone():
    words = documented_run()
    assert values(words, "--publish") == [f"127.0.0.1:{port}:{port}" for port in PORTS.values()]
    assert values(words, "--mount") == ["type=bind,src=/srv/repository,dst=/models,readonly"]
    assert {"--read-only", "--rm"} <= set(words)
    assert values(words, "--cap-drop") == ["ALL"]
    assert values(words, "--security-opt") == ["no-new-privileges"]
    assert values(words, "--pull") == ["never"]
    assert values(words, "--ulimit") == [f"stack={STACK_BYTES}:{STACK_BYTES}"]
    assert int(values(words, "--stop-timeout")[0]) > EXIT_SECONDS
    assert {limit.split("=")[0] for limit in values(words, "--log-opt")} == {"max-size", "max-file"}
    assert not {"--privileged", "--network", "--net"} & set(words)


def test_the_real_docker_takes_the_documented_run():
    """Without a daemon: the program checks its flags before it looks for one, and nothing is run."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker program")
    if subprocess.run(["docker", "info"], capture_output=True, text=True).stderr.find("annot connect") < 0:
        pytest.skip("a docker daemon answers: the command would be run")
    words = documented_run()
    answer = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "Cannot connect to the Docker daemon" in answer.stderr
    wrong = subprocess.run([*words[:2], "--nonsense", *words[2:]], capture_output=True, text=True, timeout=60)
    assert "unknown flag: --nonsense" in wrong.stderr


def test_the_server_is_started_alike_by_compose_and_kubernetes_and_the_key_guards_its_admin_interfaces():
    def options(arguments: list[str], key: str) -> set[str]:
        return {a.replace(key, "KEY") for a in arguments}

    expected = options(container(one("Deployment", "xt-triton"))["args"], "$(XT_ADMIN_KEY)")
    wanted = "${XT_ADMIN_KEY:?choose an admin key}"
    assert options(compose()["services"]["triton-gpu"]["command"], wanted) == expected
    assert {f"--{name}-port={port}" for name, port in PORTS.items()} <= expected
    assert {"tritonserver", "--model-repository=/models", f"--exit-timeout-secs={EXIT_SECONDS}"} <= expected
    for guard in ("--http-restricted-api", "--grpc-restricted-protocol"):
        assert f"{guard}={RESTRICTED}:{server_state.KEY_HEADER}=KEY" in expected


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes_of_what_xt_counts():
    (metric,) = one("HorizontalPodAutoscaler", "xt-triton")["spec"]["metrics"]
    (rule,) = yaml.safe_load(one("ConfigMap", "xt-adapter")["data"]["config.yaml"])["rules"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"] == "xt_queue_milliseconds"
    assert rule["name"]["matches"] in COUNTERS
    assert rule["name"]["matches"] in rule["seriesQuery"]
    label, known = LABELS["xt_seconds_total"]
    assert set(re.findall(rf'{label}="(\w+)"', rule["seriesQuery"] + rule["metricsQuery"])) == {"queue"} <= set(known)
    assert rule["metricsQuery"].count("<<.LabelMatchers>>") == rule["metricsQuery"].count("<<.GroupBy>>") == 2
    target = one("HorizontalPodAutoscaler", "xt-triton")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "xt-triton")


@pytest.mark.parametrize("name", ["xt-triton", "xt-gateway"])
def test_pods_have_no_rights_and_a_bound(name):
    deployment = one("Deployment", name)
    spec, own = pod(deployment)["spec"], container(deployment)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == set(own["resources"])
    assert "memory" in own["resources"]["limits"]
    assert {v["name"] for v in own["volumeMounts"]} == {v["name"] for v in spec["volumes"]}


def test_shared_memory_is_memory_and_the_models_cannot_be_written():
    deployment = one("Deployment", "xt-triton")
    mounts = {v["mountPath"]: v for v in container(deployment)["volumeMounts"]}
    volumes = {v["name"]: v for v in pod(deployment)["spec"]["volumes"]}
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
    assert mounts["/models"]["readOnly"] is True


def test_draining_ends_before_the_pod_is_killed():
    deployment = one("Deployment", "xt-triton")
    own = container(deployment)
    (seconds,) = [int(a.split("=")[1]) for a in own["args"] if a.startswith("--exit-timeout-secs=")]
    pause = int(own["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + seconds < pod(deployment)["spec"]["terminationGracePeriodSeconds"]
    assert seconds < int(compose()["services"]["triton-gpu"]["stop_grace_period"].removesuffix("s"))


def test_compose_publishes_on_this_machine_alone_and_gives_shared_memory():
    services = compose()["services"]
    assert set(services) == {"triton-gpu", "triton-cpu", "gateway"}
    published = [port for service in services.values() for port in service["ports"]]
    assert len(published) == 6
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    for name in ("triton-gpu", "triton-cpu"):
        assert services[name]["shm_size"] == "1gb"
        assert services[name]["ulimits"] == {"stack": STACK_BYTES}
        assert services[name]["volumes"][0]["read_only"] is True
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}  # what it prints is bounded
    (device,) = services["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert services["triton-cpu"]["environment"]["XT_ADMIN_KEY"]
    assert server_state.KEY_VARIABLE == "XT_ADMIN_KEY"
    assert not any(":8000:" in port for port in services["triton-cpu"]["ports"])  # HTTP of the wheel's old Triton
    text = (DEPLOY / "compose.yaml").read_text()
    assert f"${{{server_state.TOKEN_VARIABLE}:" not in text  # elsewhere the token itself has this name
    assert compose()["secrets"]["token"]["file"] == "${XT_TOKEN_FILE:-../token.txt}"


def test_the_cpu_image_opens_grpc_and_metrics_and_keeps_http_to_itself():
    from typer.testing import CliRunner

    (command,) = [line for line in stages()["cpu"] if line.startswith("CMD")]
    words = yaml.safe_load(command.removeprefix("CMD "))
    assert words[:5] == ["python3", "-m", "xt.cli.main", "serve", "/models"]
    assert words[5:] == ["--grpc-host", "0.0.0.0", "--metrics-host", "0.0.0.0"]
    known = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert all(word in known for word in words[5::2])


def stages() -> dict[str, list[str]]:
    """The lines of each stage of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = [line]
        elif line and not line.startswith("#") and found:
            found[list(found)[-1]].append(line)
    return found


def test_the_images_are_built_in_two_stages_run_as_nobody_and_say_how_they_are():
    found = stages()
    assert list(found) == ["cpu-packages", "cpu", "nvidia-packages", "nvidia"]  # the last is built by default
    targets = {s["build"]["target"] for s in compose()["services"].values()}
    assert targets == {"cpu", "nvidia"}
    for name in targets:
        text = "\n".join(found[name])
        assert f"COPY --from={name}-packages " in text
        assert "USER 10001:10001" in text
        assert re.search(r'HEALTHCHECK .* CMD \["python3", "/opt/xt/health.py", "8000", "/v2/health/ready"\]', text)
        assert "pip install" not in text
        assert text.index("USER") < text.index("CMD [")
    for name in ("cpu-packages", "nvidia-packages"):
        (locked,) = [line for line in found[name] if "-r requirements/" in line]
        assert "--require-hashes" in locked
    assert not re.search(r":latest|\btorch\b(?! and)|ADD http", (DEPLOY / "Dockerfile").read_text())


def test_what_the_dockerfile_copies_is_there_and_reaches_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {
        source
        for lines in stages().values()
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert len(copied) >= 12
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert rooms <= copied
    for source in copied:
        assert source.split("/")[0] in allowed or source in allowed, source
        if not source.startswith("requirements/"):
            assert (ROOT / source).exists(), source


def test_the_requirements_of_serving_name_no_trainer_and_one_onnx_runtime():
    for end, runtime in (("gpu", "onnxruntime-gpu"), ("cpu", "onnxruntime-openvino")):
        text = (DEPLOY / f"requirements-serve-{end}.in").read_text()
        text = text.replace("-r requirements-serve.in", (DEPLOY / "requirements-serve.in").read_text())
        names = {re.split(r"[\[<>=~! ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
        assert {n for n in names if n.startswith("onnxruntime")} == {runtime}
        assert not {"torch", "transformers", "optimum", "optimum-onnx", "accelerate", "sentence-transformers"} & names
        assert {"tokenizers", "numpy", "faiss-cpu", "fastapi", "uvicorn"} <= names


NOT_IN_THE_IMAGES = (
    "torch transformers optimum onnx accelerate pyarrow sentence_transformers nncf sklearn pandas psutil".split()
)
SERVED = """
import importlib, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
for module in {modules!r}:
    importlib.import_module(module)
print(len({modules!r}))
"""


def test_the_serving_path_imports_nothing_that_the_images_lack():
    models = [m for p in sorted((ROOT / "model_repository").glob("*/1/model.py")) for m in
              re.findall(r"^from (xt\.[\w.]+) import", p.read_text(), re.MULTILINE)]  # fmt: skip
    modules = sorted({*models, "xt.serve.triton.launcher", "xt.serve.gateway.server", "xt.serve.client.client",
                      "xt.serve.gateway.app", "xt.cli.main", "xt.serve.run"})  # fmt: skip
    assert {"xt.core.served_encoder", "xt.core.served_head", "xt.core.served_retriever", "xt.core.served_text"} < {
        *modules
    }
    program = SERVED.format(missing=NOT_IN_THE_IMAGES, modules=modules)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    wrong = SERVED.format(missing=NOT_IN_THE_IMAGES, modules=["torch"])
    assert subprocess.run([sys.executable, "-c", wrong], capture_output=True).returncode != 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def health(port: int, path: str = "/health") -> int:
    program = [sys.executable, DEPLOY / "health.py", str(port), path]
    return subprocess.run(program, capture_output=True).returncode


def test_the_gateways_container_starts_is_healthy_asks_for_the_token_and_ends_on_sigterm(tmp_path):
    """Its network is this machine's here; nothing is served behind it."""
    port = free_port()
    (tmp_path / "token").write_text("a-long-token\n")
    env = {**os.environ, "XT_TRITON_URL": f"127.0.0.1:{free_port()}", "XT_TOKEN_FILE": str(tmp_path / "token")}
    process = subprocess.Popen([sys.executable, DEPLOY / "gateway.py"], env={**env, "XT_PORT": str(port)})
    try:
        deadline = time.monotonic() + 40
        while health(port) != 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert health(port, "/nothing-here") == 1
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5)
        assert error.value.code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert health(port) == 1
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"XT_TOKEN_FILE": ""}, "XT_TOKEN_FILE is not set"),
        ({"XT_TOKEN_FILE": os.devnull}, "XT_TOKEN_FILE is an empty file"),
        ({"XT_TOKEN_FILE": "/nowhere/token"}, "No such file"),
    ],
)
def test_the_gateways_container_says_what_it_lacks(variables, message):
    env = {**os.environ, "XT_TRITON_URL": "127.0.0.1:1", **variables}
    answer = subprocess.run(
        [sys.executable, DEPLOY / "gateway.py"], env=env, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 1
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
