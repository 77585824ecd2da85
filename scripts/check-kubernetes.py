"""Checks rendered manifests. scripts/check-kubernetes calls it with their paths.

The schemas tell whether Kubernetes would accept them. The other checks compare exit codes, settings and time limits
with the README and with each other.
"""

import math
import re
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

# The oldest Kubernetes with stable support for all fields, as in docs/kubernetes.md, and a recent one.
VERSIONS = ("1.29", "1.37")

# Codes that apply to all shards alike: the command line, the credentials, the settings.
ALL_SHARDS = {64, 77, 78}

# Guarded and locked, which have alerts of their own.
OWN_ALERT = {80, 81}

# The maximum time for an orderly stop, in seconds, as stated in the README.
ORDERLY_END = 10

# The paths that `labelcast listen` serves for probes.
PROBES = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


class Faults(list):
    """Problems found, each with its place."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def check(self, holds, what):
        if not holds:
            self.append(f"{self.where}: {what}")


def exit_codes(readme):
    """Reads the table "Exit codes": each code with its "try again?" ("yes", "no" or, for 0, nothing)."""
    section = readme.split("\n## Exit codes\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\| *(yes|no|) *\|$", section, re.MULTILINE)
    codes = {int(code): again for code, again in rows}
    # If the table's form changes, no row may be ignored.
    lines = [line for line in section.splitlines() if re.match(r"\|\s*\d", line)]
    if len(codes) != len(lines) or {code for code, again in codes.items() if not again} != {0}:
        sys.exit("README.md: the table “Exit codes” is not as expected")
    return codes


def setting_keys(example):
    """Returns the keys of a settings file, as section.key."""
    keys, section = set(), None
    for line in example.splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif key := re.match(r"#?(\w+) = ", line):
            keys.add(f"{section}.{key[1]}")
    return keys


def seconds(duration):
    parts = re.fullmatch(r"(\d+)([smhd])", duration)
    return int(parts[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[parts[2]]


def check_failure_policy(job, codes, faults):
    """Checks that each exit code is in exactly the rule that the README's table requires."""
    indexed = job.get("completionMode") == "Indexed"
    containers = [container["name"] for container in job["template"]["spec"]["containers"]]
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    # The schemas do not check the values here.
    policy = job["template"]["spec"].get("restartPolicy")
    faults.check(policy == "Never", "a pod failure policy requires restartPolicy: Never")
    found = {}
    for rule in rules:
        on = rule.get("onExitCodes")
        if not on:
            continue
        faults.check(on["operator"] == "In", f"{rule['action']}: the operator is not In")
        faults.check(on.get("containerName") in containers, f"{rule['action']}: names no container")
        for code in on["values"]:
            faults.check(code in codes and code != 0, f"{rule['action']}: {code} is not a failure in the README")
            faults.check(code not in found, f"{code} is in more than one rule")
            found.setdefault(code, rule["action"])
    for code, again in codes.items():
        if again == "yes":
            wanted = "Count"
        elif again == "no":
            wanted = "FailIndex" if indexed and code not in ALL_SHARDS else "FailJob"
        else:
            continue
        faults.check(found.get(code) == wanted, f"{code} is in the rule {found.get(code)}, but belongs in {wanted}")

    ignored = [rule for rule in rules if rule["action"] == "Ignore"]
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    faults.check(
        rules[:1] == ignored and ignored and ignored[0].get("onPodConditions") == disrupted,
        "the first rule, and no other, must ignore DisruptionTarget",
    )


def check_other_places(codes, faults):
    """Checks that the systemd units and the alert LabelcastNeedsAPerson have the codes of the README's table too."""
    no = {code for code, again in codes.items() if again == "no"}

    for name in ("labelcast.service", "labelcast-listen.service", "labelcast-enrich.service"):
        unit = Path("config/systemd", name).read_text()
        listed = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
        faults.check(
            [{int(code) for code in line.split()} for line in listed] == [no],
            f"{name}: RestartPreventExitStatus must be {' '.join(map(str, sorted(no)))}",
        )

    rules = yaml.safe_load(Path("config/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
    query = next(rule["expr"] for rule in rules if rule["alert"] == "LabelcastNeedsAPerson")
    left_out = {int(code) for code in re.findall(r"!= (\d+)", query)}
    faults.check(
        left_out == codes.keys() - no | OWN_ALERT,
        "alerts.yaml: LabelcastNeedsAPerson must exclude transient codes and codes with an alert of their own",
    )


def command(workload):
    """Returns the command of the program that the pods run."""
    return workload["template"]["spec"]["containers"][0]["args"][0]


def check_times(job, faults):
    """Checks that each attempt can stop in an orderly way before Kubernetes ends the Job."""
    pod = job["template"]["spec"]
    faults.check(pod.get("terminationGracePeriodSeconds", 30) > ORDERLY_END, "the grace period is too short")
    if command(job) == "enrich":
        # It has no deadline of its own. What is left at the end of the Job stays on the queue.
        faults.check("activeDeadlineSeconds" in job, "has no activeDeadlineSeconds")
        faults.check("--drain" in pod["containers"][0]["args"], "without --drain the Job never ends")
        return
    variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0].get("env", [])}
    deadline = variables.get("LABELCAST_DEADLINE")
    faults.check(deadline, "LABELCAST_DEADLINE is not set")
    retries = job.get("backoffLimitPerIndex", job.get("backoffLimit", 6))
    pauses = sum(min(10 * 2**n, 600) for n in range(retries))
    waves = math.ceil(job.get("completions", 1) / job.get("parallelism", 1))
    if deadline:
        longest = waves * ((retries + 1) * (seconds(deadline) + ORDERLY_END) + pauses)
        given = job.get("activeDeadlineSeconds", 0)
        faults.check(given > longest, f"activeDeadlineSeconds is {given}, but all attempts can take {longest} s")


def check_shards(job, faults):
    """Checks that there are as many shards as pods, each with its own retries."""
    args = job["template"]["spec"]["containers"][0]["args"]
    if job.get("completionMode") != "Indexed":
        faults.check("--shard" not in args, "--shard is for Indexed Jobs")
        return
    shard = f"$(JOB_COMPLETION_INDEX)/{job['completions']}"
    faults.check(args[-2:] == ["--shard", shard], f"the arguments do not end with --shard {shard}")
    faults.check("backoffLimitPerIndex" in job, "has no backoffLimitPerIndex")
    faults.check("backoffLimit" not in job, "backoffLimit would count the retries of all shards together")


def check_pod(job, documents, readme, faults):
    """Checks that everything that the pod refers to exists, and that the program knows its variables."""
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    for entry in container.get("env", []):
        known = f"`{entry['name']}`" in readme
        faults.check(known, f"the variable {entry['name']} is not documented")
    kinds = {(document["kind"], document["metadata"]["name"]) for document in documents}
    paths = set()
    for volume in pod["volumes"]:
        if name := volume.get("configMap", {}).get("name"):
            faults.check(("ConfigMap", name) in kinds, f"there is no ConfigMap {name}")
        mounts = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
        faults.check(len(mounts) == 1, f"the volume {volume['name']} is not mounted once")
        for source in volume.get("projected", {}).get("sources", []):
            paths |= {f"{mount}/{item['path']}" for mount in mounts for item in source["secret"]["items"]}
    for entry in container.get("env", []):
        # The keys of a secret that is mounted as a whole are not in the manifests.
        if paths and entry["name"].endswith("_FILE"):
            faults.check(entry["value"] in paths, f"{entry['name']}: no secret is mounted at {entry['value']}")
    account = pod["serviceAccountName"]
    faults.check(("ServiceAccount", account) in kinds, f"there is no ServiceAccount {account}")
    labels = job["template"]["metadata"]["labels"]
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            selected = document["spec"]["podSelector"]["matchLabels"]
            name = document["metadata"]["name"]
            faults.check(selected.items() <= labels.items(), f"the NetworkPolicy {name} does not select the pod")


def check_server(deployment, documents, faults):
    """Checks that what refers to the Deployment's pods finds them, and that they can stop in an orderly way."""
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    container = pod["containers"][0]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    faults.check(pod.get("terminationGracePeriodSeconds", 30) > ORDERLY_END, "the grace period is too short")
    faults.check(deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "an update makes pods unavailable")

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    port = int(variables["LABELCAST_LISTEN_BIND"].rpartition(":")[2])
    faults.check(set(ports.values()) == {port}, "LABELCAST_LISTEN_BIND does not have the container's port")
    faults.check("LABELCAST_DASHBOARD_TOKEN_FILE" in variables, "the dashboard has no token")
    for probe, path in PROBES.items():
        get = container[probe]["httpGet"]
        faults.check(get["path"] == path and get["port"] in ports, f"{probe} does not ask {path}")
    annotations = deployment["template"]["metadata"]["annotations"]
    faults.check(annotations["prometheus.io/port"] == str(port), "prometheus.io/port is not the container's port")

    selectors = [("Deployment", deployment["selector"]["matchLabels"])]
    selectors += [("spread", spread["labelSelector"]["matchLabels"]) for spread in pod["topologySpreadConstraints"]]
    services = {}
    for document in documents:
        spec, name = document.get("spec"), document["metadata"]["name"]
        if document["kind"] == "PodDisruptionBudget":
            selectors.append(("PodDisruptionBudget", spec["selector"]["matchLabels"]))
            faults.check(spec["minAvailable"] < deployment["replicas"], "no pod may ever be evicted")
        elif document["kind"] == "Service":
            selectors.append(("Service", spec["selector"]))
            services[name] = {entry["name"] for entry in spec["ports"]}
            for entry in spec["ports"]:
                faults.check(entry["targetPort"] in ports, f"the Service {name} has another port than the pod")
        elif document["kind"] == "NetworkPolicy":
            allowed = {entry["port"] for rule in spec["ingress"] for entry in rule["ports"]}
            faults.check(allowed == {port}, f"the NetworkPolicy {name} allows other ports")
            faults.check(all(rule.get("from") for rule in spec["ingress"]), f"the NetworkPolicy {name} allows everybody")
    for kind, selector in selectors:
        faults.check(selector.items() <= labels.items(), f"the selector of the {kind} does not select the pod")
        # The pods of the CronJob have the same name, and no component.
        faults.check("app.kubernetes.io/component" in selector, f"the selector of the {kind} also selects a CronJob's pod")

    for document in documents:
        if document["kind"] != "Ingress":
            continue
        name = document["metadata"]["name"]
        paths = [path for rule in document["spec"]["rules"] for path in rule["http"]["paths"]]
        for path in paths:
            service = path["backend"]["service"]
            known = service["port"]["name"] in services.get(service["name"], ())
            faults.check(known, f"the Ingress {name} refers to no port of a Service")
        hosts = {rule["host"] for rule in document["spec"]["rules"]}
        secured = {host for tls in document["spec"]["tls"] for host in tls["hosts"]}
        faults.check(hosts == secured, f"the Ingress {name} has hosts without TLS")
        if name == "labelcast-listen":
            routed = [(path["path"], path["pathType"]) for path in paths]
            faults.check(routed == [("/webhook", "Exact")], f"the Ingress {name} must route /webhook and nothing else")


def check_worker(deployment, documents, faults):
    """Checks that only one process asks the API, that Prometheus finds it, and that it can stop in an orderly way."""
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    container = pod["containers"][0]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    faults.check(pod.get("terminationGracePeriodSeconds", 30) > ORDERLY_END, "the grace period is too short")
    faults.check(deployment["replicas"] == 1, "each replica has a rate of its own, so one is the default")
    faults.check(deployment["strategy"]["type"] == "Recreate", "an update would run two processes with a rate of their own")

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    port = int(variables["LABELCAST_ENRICH_METRICS_BIND"].rpartition(":")[2])
    faults.check(set(ports.values()) == {port}, "LABELCAST_ENRICH_METRICS_BIND does not have the container's port")
    get = container["livenessProbe"]["httpGet"]
    faults.check(get["path"] == "/healthz" and get["port"] in ports, "livenessProbe does not ask /healthz")
    annotations = deployment["template"]["metadata"]["annotations"]
    faults.check(annotations["prometheus.io/port"] == str(port), "prometheus.io/port is not the container's port")
    faults.check(annotations["prometheus.io/path"] == "/metrics", "prometheus.io/path is not /metrics")

    selector = deployment["selector"]["matchLabels"]
    faults.check(selector.items() <= labels.items(), "the selector does not select the pod")
    # The pods of the CronJob have the same name, and no component.
    faults.check("app.kubernetes.io/component" in selector, "the selector also selects a CronJob's pod")
    for document in documents:
        faults.check(document["kind"] not in ("Service", "Ingress"), "nothing but Prometheus connects to the worker")
        if document["kind"] == "NetworkPolicy":
            name = document["metadata"]["name"]
            allowed = {entry["port"] for rule in document["spec"]["ingress"] for entry in rule["ports"]}
            faults.check(allowed == {port}, f"the NetworkPolicy {name} allows other ports")
            everybody = not all(rule.get("from") for rule in document["spec"]["ingress"])
            faults.check(not everybody, f"the NetworkPolicy {name} allows everybody")


def check_scaling(faults):
    """Checks that the examples for KEDA refer to the Deployment of the overlay enrich, its queue and its secret."""
    overlay = Path("config/kubernetes/overlays/enrich")
    deployment = yaml.safe_load((overlay / "deployment.yaml").read_text())
    queue = tomllib.loads((overlay / "labelcast.toml").read_text())["enrich"]["from"]
    group = re.search(r'^#group = "(.*)"$', Path("config/labelcast.example.toml").read_text(), re.MULTILINE)[1]
    for path in sorted(Path("config/keda").glob("*.yaml")):
        scaled, login = yaml.safe_load_all(path.read_text())
        faults.check((scaled["kind"], login["kind"]) == ("ScaledObject", "TriggerAuthentication"), f"{path.name}: kinds")
        target = scaled["spec"]["scaleTargetRef"]["name"]
        faults.check(target == deployment["metadata"]["name"], f"{path.name}: there is no Deployment {target}")
        for trigger in scaled["spec"]["triggers"]:
            values = trigger["metadata"]
            faults.check(values.get("stream", values.get("queueName")) == queue, f"{path.name}: the queue is not {queue}")
            faults.check(values.get("consumerGroup", group) == group, f"{path.name}: the group is not {group}")
            faults.check(all(isinstance(value, str) for value in values.values()), f"{path.name}: values must be texts")
            known = trigger["authenticationRef"]["name"] == login["metadata"]["name"]
            faults.check(known, f"{path.name}: the login has another name")


def check_document(document, known_keys, faults):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            faults.check(False, f"Kubernetes {version}: {path}: {error.message}")
    faults.check(document["kind"] != "Secret", "a Secret does not belong in a repository")
    if document["kind"] == "ConfigMap":
        for name, text in document["data"].items():
            for section, settings in tomllib.loads(text).items():
                for key in settings:
                    faults.check(f"{section}.{key}" in known_keys, f"{name}: there is no key {section}.{key}")


def check(path, codes, known_keys, readme):
    documents = list(yaml.safe_load_all(path.read_text()))
    faults = []
    for document in documents:
        these = Faults(f"{path.stem}: {document['kind']} {document['metadata']['name']}")
        check_document(document, known_keys, these)
        faults += these
    if faults:
        # The checks below assume documents that match the schemas.
        return faults
    jobs = [document["spec"]["jobTemplate"]["spec"] for document in documents if document["kind"] == "CronJob"]
    jobs += [document["spec"] for document in documents if document["kind"] == "Job"]
    for job in jobs:
        these = Faults(f"{path.stem}: Job")
        check_failure_policy(job, codes, these)
        check_times(job, these)
        check_shards(job, these)
        check_pod(job, documents, readme, these)
        faults += these
    servers = [document["spec"] for document in documents if document["kind"] == "Deployment"]
    for server in servers:
        these = Faults(f"{path.stem}: Deployment")
        if command(server) == "enrich":
            check_worker(server, documents, these)
        else:
            check_server(server, documents, these)
        check_pod(server, documents, readme, these)
        faults += these
    if not jobs + servers:
        faults.append(f"{path.stem}: there is no CronJob, no Job and no Deployment")
    if not faults:
        print(f"{path.stem}: {len(documents)} documents, valid for Kubernetes {' and '.join(VERSIONS)}")
    return faults


def main(paths):
    readme = Path("README.md").read_text()
    codes = exit_codes(readme)
    readme += Path("docs/configuration.md").read_text()
    known_keys = setting_keys(Path("config/labelcast.example.toml").read_text())
    faults = [fault for path in paths for fault in check(Path(path), codes, known_keys, readme)]
    elsewhere = Faults("config")
    check_other_places(codes, elsewhere)
    check_scaling(elsewhere)
    faults += elsewhere
    print(*faults, sep="\n", file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
