#!/usr/bin/env python3
"""Writes the SBOM of the program, in CycloneDX 1.5, to standard output: each crate that is built into it or that
takes part in its build, with version, licence and checksum. The same Cargo.lock gives the same bytes."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cargo_metadata(target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def dependencies(node):
    """The packages that a package needs, but for those that only its tests need."""
    kinds = lambda one: {kind["kind"] for kind in one["dep_kinds"]}
    return sorted(one["pkg"] for one in node["deps"] if kinds(one) - {"dev"})


def reached(nodes, root):
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting += dependencies(nodes[package])
    return found


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, kind):
    made = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    made |= {"purl": purl(package)}
    if package.get("description"):
        made["description"] = " ".join(package["description"].split())
    if package.get("license"):
        made["licenses"] = [{"expression": " ".join(package["license"].replace("/", " OR ").split())}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def main(target):
    metadata = cargo_metadata(target)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    parts = sorted(reached(nodes, root), key=lambda one: purl(packages[one]))
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(packages[root], checksums, "application"),
            "properties": [{"name": "cdx:rustc:target", "value": target}],
        },
        "components": [component(packages[one], checksums, "library") for one in parts if one != root],
        "dependencies": [
            {"ref": purl(packages[one]), "dependsOn": sorted(purl(packages[two]) for two in dependencies(nodes[one]))}
            for one in parts
        ],
    }
    json.dump(bom, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main(sys.argv[1])
