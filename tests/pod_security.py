"""The Pod Security Standards' profile "restricted", as rules on a pod's specification.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Kubernetes 1.32, Linux pods), the baseline's rules
included. `restricted` answers what the admission controller would refuse; `hardened` adds what this project asks for
besides: a read-only root, resources, no service account token unless wanted.
"""

from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}
APPARMOR = {None, "RuntimeDefault", "Localhost"}
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def restricted(pod: Spec, annotations: dict[str, str] | None = None) -> list[str]:
    """Violations of "restricted" by the pod specification `pod`, one sentence each."""
    found = [f"{name} must not be true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    own = pod.get("securityContext") or {}
    found += [
        f"volume {volume.get('name')}: {kind} is not an allowed type"
        for volume in pod.get("volumes") or []
        for kind in volume.keys() - {"name"}
        if kind not in VOLUMES
    ]
    found += [
        f"sysctl {sysctl['name']} is not a safe one"
        for sysctl in own.get("sysctls") or []
        if sysctl["name"] not in SYSCTLS
    ]
    found += [
        f"annotation {key}: {value}"
        for key, value in (annotations or {}).items()
        if key.startswith(APPARMOR_ANNOTATION) and not value.startswith(("runtime/default", "localhost/"))
    ]
    found += [f"pod: {text}" for text in _context(own)]
    if own.get("runAsUser") == 0:
        found.append("pod: runAsUser must not be 0")
    for container in containers(pod):
        found += [f"container {container['name']}: {text}" for text in _container(container, own)]
    return found


def hardened(pod: Spec) -> list[str]:
    """What this project asks for beyond "restricted", for pods that it writes itself."""
    found = []
    own = pod.get("securityContext") or {}
    for container in containers(pod):
        name, context = container["name"], container.get("securityContext") or {}
        resources = container.get("resources") or {}
        if context.get("readOnlyRootFilesystem") is not True:
            found.append(f"container {name}: readOnlyRootFilesystem must be true")
        if not isinstance(context.get("runAsUser", own.get("runAsUser")), int):
            found.append(f"container {name}: runAsUser must be a number")
        found += [
            f"container {name}: {part}.{kind} is missing"
            for part in ("requests", "limits")
            for kind in ("cpu", "memory")
            if kind not in (resources.get(part) or {})
        ]
        if not any(mount["mountPath"] == "/tmp" for mount in container.get("volumeMounts") or []):
            found.append(f"container {name}: nothing is mounted at /tmp, and the root is read-only")
    return found


def containers(pod: Spec) -> Iterator[Spec]:
    """Every container of a pod, whatever list it is in."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(field) or []


def pod_specs(resource: Spec) -> Iterator[tuple[str, Spec, dict[str, str]]]:
    """(path, specification, annotations) of every pod template anywhere in `resource`, and of itself if it is a Pod."""
    yield from _templates(resource, resource.get("kind", ""))


def _templates(value: Any, path: str) -> Iterator[tuple[str, Spec, dict[str, str]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _templates(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            yield f"{path}.spec", spec, (value.get("metadata") or {}).get("annotations") or {}
        for key, item in value.items():
            yield from _templates(item, f"{path}.{key}")


def _container(container: Spec, pod: Spec) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "privileged must not be true"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation must be false"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities.drop must hold ALL"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities.add may hold NET_BIND_SERVICE only"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot must be true, here or in the pod"
    if context.get("runAsUser") == 0:
        yield "runAsUser must not be 0"
    if (context.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield "seccompProfile.type must be RuntimeDefault or Localhost, here or in the pod"
    if context.get("procMount") not in (None, "Default"):
        yield "procMount must be Default"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort is not allowed"
    yield from _context(context)


def _context(context: Spec) -> Iterator[str]:
    """Rules that hold for the security context of a pod and of a container alike."""
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions: a type of containers, no user and no role"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in SECCOMP:
        yield "seccompProfile.type must be RuntimeDefault or Localhost"
    if (context.get("appArmorProfile") or {}).get("type") not in APPARMOR:
        yield "appArmorProfile.type must be RuntimeDefault or Localhost"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "windowsOptions.hostProcess must not be true"


Mutation = Callable[[Spec], Any]
VIOLATIONS: dict[str, Mutation] = {
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "hostPID": lambda pod: pod.update(hostPID=True),
    "hostIPC": lambda pod: pod.update(hostIPC=True),
    "hostPath": lambda pod: pod.setdefault("volumes", []).append({"name": "root", "hostPath": {"path": "/"}}),
    "sysctl": lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "pod: runAsUser": lambda pod: pod["securityContext"].update(runAsUser=0),
    "pod: seccompProfile": lambda pod: pod["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "pod: seLinuxOptions": lambda pod: pod["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
    "pod: windowsOptions": lambda pod: pod["securityContext"].update(windowsOptions={"hostProcess": True}),
    "privileged": lambda pod: first(pod).update(privileged=True),
    "allowPrivilegeEscalation": lambda pod: first(pod).pop("allowPrivilegeEscalation"),
    "capabilities.drop": lambda pod: first(pod).update(capabilities={"drop": ["NET_RAW"]}),
    "capabilities.add": lambda pod: first(pod).update(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
    "runAsNonRoot": lambda pod: first(pod).update(runAsNonRoot=False),
    "runAsUser must not be 0": lambda pod: first(pod).update(runAsUser=0),
    "seccompProfile": lambda pod: first(pod).update(seccompProfile={"type": "Unconfined"}),
    "procMount": lambda pod: first(pod).update(procMount="Unmasked"),
    "appArmorProfile": lambda pod: first(pod).update(appArmorProfile={"type": "Unconfined"}),
    "hostPort": lambda pod: pod["containers"][0].update(ports=[{"containerPort": 80, "hostPort": 80}]),
}
"""For tests of the rules: by a part of the sentence that it must lead to, a change that breaks a good pod."""


def first(pod: Spec) -> Spec:
    """The security context of a pod's first container."""
    context: Spec = pod["containers"][0]["securityContext"]
    return context
