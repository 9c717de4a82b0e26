"""What a set of NetworkPolicies lets through, by the rules of the Kubernetes API (networking.k8s.io/v1).

Pods that no policy selects for a direction are open in it; a selected pod gets the union of its policies' rules.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

NAMESPACE_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Pod:
    """One end of a connection: a pod, or with `address` something that is not a pod."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def allowed(policies: list[dict[str, Any]], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection may be opened, as far as these policies decide."""
    return _passes(policies, source, target, "Egress", port, protocol) and _passes(
        policies, target, source, "Ingress", port, protocol
    )


def _passes(policies: list[dict[str, Any]], own: Pod, peer: Pod, direction: str, port: int, protocol: str) -> bool:
    selecting = [
        policy
        for policy in policies
        if not own.address
        and policy["metadata"]["namespace"] == own.namespace
        and direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], own.labels)
    ]
    rules, peers = direction.lower(), {"Egress": "to", "Ingress": "from"}[direction]
    return not selecting or any(
        _peer(rule.get(peers), policy["metadata"]["namespace"], peer) and _port(rule.get("ports"), port, protocol)
        for policy in selecting
        for rule in policy["spec"].get(rules) or []
    )


def _peer(peers: list[dict[str, Any]] | None, namespace: str, pod: Pod) -> bool:
    if not peers:
        return True
    return any(_one_peer(peer, namespace, pod) for peer in peers)


def _one_peer(peer: dict[str, Any], namespace: str, pod: Pod) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if not pod.address:
            return False
        address = ipaddress.ip_address(pod.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(hole) for hole in block.get("except", [])
        )
    if pod.address:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {NAMESPACE_LABEL: pod.namespace}):
            return False
    elif pod.namespace != namespace:
        return False
    return matches(peer.get("podSelector", {}), pod.labels)


def _port(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(item["port"] == port and item.get("protocol", "TCP") == protocol for item in ports)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector selects `labels`."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for item in selector.get("matchExpressions") or []:
        key, values = item["key"], item.get("values", [])
        holds = {
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
        }[item["operator"]]
        if not holds:
            return False
    return True
