"""Making one RPM out of one Debian package: the spec, and the call of rpmbuild."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from deploy.demo.commands import run
from deploy.demo.contents import CAPABILITIES, LINKS, PRESENT, RPM_NAMES
from deploy.demo.control import parse_relations, parse_stanza
from deploy.demo.stamp import META
from deploy.demo.translate import bounded, devel_names, package_evr, requirements
from deploy.demo.tree import Tree, add_links, capabilities, libraries, scan, unpack
from farm.model.arch import Arch

# Fixed, so that the same Debian packages always become the same RPMs.
SOURCE_DATE_EPOCH = "1767614400"
BUILD_HOST = "demo"
ELFDEPS = "/usr/lib/rpm/elfdeps"
# Turns off everything in rpmbuild that changes files, scans them again, or depends on the host's configuration.
MACROS = {
    "_binary_payload": "w1.zstdio",
    "_build_id_links": "none",
    "_buildshell": "/bin/bash",
    "_buildhost": BUILD_HOST,
    "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
    "_unpackaged_files_terminate_build": "0",
    "_binaries_in_noarch_packages_terminate_build": "0",
    "__os_install_post": "%{nil}",
    "__arch_install_post": "%{nil}",
    "__spec_install_post": "%{nil}",
    "debug_package": "%{nil}",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "vendor": "Demo",
}
# rpm 4.18 looks for the escaped name itself when a glob character is escaped, so each becomes "any one character".
GLOB = str.maketrans(dict.fromkeys("[]*?{}\\", "?"))


def repack(deb: Path, *, arch: Arch, work: Path, output: Path) -> None:
    """Write the RPM of one .deb into `output`; `work` must not exist and is removed."""
    tree = unpack(deb, work)
    name = parse_stanza(tree.control)["Package"]
    add_links(tree.root, LINKS.get(name, {}))
    files, empty = scan(tree.root)
    file_list = work / "files" if files or empty else None
    if file_list:
        file_list.write_text("".join(file_lines(files, empty, tree.config_files)))
    spec = work / f"{name}.spec"
    spec.write_text(render_spec(tree.control, capabilities=(*capabilities(tree), *sonames(tree)), file_list=file_list))
    build(spec, arch=arch, work=work, output=output, buildroot=tree.root)
    shutil.rmtree(work)


def build(spec: Path, *, arch: Arch, work: Path, output: Path, **macros: object) -> None:
    """Run rpmbuild on one of the demo's specs, without the host's configuration."""
    defines = {**MACROS, "_topdir": work / "top", "_rpmdir": output, "_tmppath": work, **macros}
    arguments = [part for name, value in defines.items() for part in ("--define", f"{name} {value}")]
    run(
        ["rpmbuild", "-bb", "--quiet", "--target", f"{arch.value}-linux", *arguments, str(spec)],
        env={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "HOME": str(work), "MAGIC": str(META / "magic")},
    )


def render_spec(control: str, *, capabilities: Iterable[str], file_list: Path | None) -> str:
    """The spec of one repackaged Debian package; without a list for one that had nothing but documentation."""
    fields = parse_stanza(control)
    name, evr = fields["Package"], package_evr(fields["Version"])
    summary, _, description = fields.get("Description", name).partition("\n")
    is_noarch = fields["Architecture"] == "all"
    header = [
        f"Name: {name}",
        f"Epoch: {evr.epoch}" if evr.epoch else "",
        f"Version: {evr.version}",
        f"Release: {evr.release}",
        f"Summary: {_literal(summary)}",
        "License: See the Debian package of the same name",
        f"URL: {_literal(fields['Homepage'])}" if "Homepage" in fields else "",
        "BuildArch: noarch" if is_noarch else "",
        "AutoReqProv: no",
        *(f"Requires: {text}" for text in _requires(fields)),
        *(f"Provides: {text}" for text in dict.fromkeys((*_provides(fields, str(evr), is_noarch), *capabilities))),
        "",
        "%description",
        _literal(description or summary),
        "",
        f"%files -f {file_list}" if file_list else "%files",
        "%defattr(-,root,root,-)",
    ]
    return "\n".join(line for line in header) + "\n"


def file_lines(files: Iterable[str], empty: Iterable[str], config_files: frozenset[str]) -> Iterable[str]:
    """Lines for `%files -f`, with RPM's glob characters and macros escaped."""
    for path in files:
        prefix = "%config(noreplace) " if f"/{path}" in config_files else ""
        yield f'{prefix}"/{_literal(path).translate(GLOB)}"\n'
    yield from (f'%dir "/{_literal(path).translate(GLOB)}"\n' for path in empty)


def sonames(tree: Tree) -> tuple[str, ...]:
    """Library names and symbol versions, as RPM's own dependency generator writes them."""
    paths = libraries(tree)
    if not paths:
        return ()
    printed = run([ELFDEPS, "--provides"], stdin="".join(f"{path}\n" for path in paths))
    return tuple(dict.fromkeys(line for line in printed.splitlines() if line))


def _requires(fields: dict[str, str]) -> tuple[str, ...]:
    groups = (*parse_relations(fields.get("Pre-Depends", "")), *parse_relations(fields.get("Depends", "")))
    return ("filesystem", *requirements(groups, present=frozenset(PRESENT)))


def _provides(fields: dict[str, str], evr: str, is_noarch: bool) -> Iterable[str]:
    name = fields["Package"]
    for alternatives in parse_relations(fields.get("Provides", "")):
        yield from (bounded(relation) for relation in alternatives)
    for alias in (*RPM_NAMES.get(name, ()), *devel_names(name)):
        yield f"{alias} = {evr}"
        if not is_noarch:
            yield f"{alias}%{{?_isa}} = {evr}"
    yield from CAPABILITIES.get(name, ())


def _literal(text: str) -> str:
    return text.replace("%", "%%")
