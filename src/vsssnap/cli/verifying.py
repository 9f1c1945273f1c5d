"""``vsssnap verify``, and the check after ``vsssnap save --verify``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from vsssnap.cli import exits, interrupts
from vsssnap.cli.common import PATH, command, reading_options
from vsssnap.cli.wording import translated

if TYPE_CHECKING:
    from vsssnap.cli.output import Output
    from vsssnap.imaging.reports import VerifyReport

_SHOWN = 20  # findings that people see
_LOOKED = {
    "STRUCTURE": "its structures were checked, no payload was",
    "STORED": "every stored byte was compared with its checksum",
    "CONTENT": "every block was read and compared with its digest",
}


@command(
    "verify",
    short="Check an image against its checksums.",
    examples="""
vsssnap verify data.vsnap
vsssnap verify data.vsnap --depth content
vsssnap verify data.raw --json
vsssnap verify half.vsnap --recover
""",
)
@click.argument("image", type=PATH)
@click.option(
    "--depth",
    type=click.Choice(["structure", "stored", "content"]),
    help="How deep to look; by default as deep as can be without decompressing.",
)
@click.option("--format", "format_name", metavar="NAME", help="Format; by default it is recognised.")
@reading_options
def verify(
    out: Output,
    *,
    image: str,
    depth: str | None,
    format_name: str | None,
    recover: bool,
    parent: tuple[str, ...],
) -> int:
    """Check an image against its checksums; exit code 1 if it is damaged."""
    report = verified(out, image, format_name, depth=depth, recover=recover, parent=parent)
    out.document(report.ok, {"report": report})
    return exits.OK if report.ok else exits.FOUND


def verified(
    out: Output,
    image: str,
    format_name: str | None,
    *,
    depth: str | None = None,
    recover: bool = False,
    parent: tuple[str, ...] = (),
) -> VerifyReport:
    """Verify an image and say what was found, in the words of the program."""
    from vsssnap import Depth, verify_image

    with interrupts.deferred(), out.progress(f"verify {image}") as progress:
        report = interrupts.aside(
            lambda: verify_image(
                image,
                format=format_name,
                depth=Depth[depth.upper()] if depth else None,
                recover=recover,
                parent=parent,
                progress=progress,
            )
        )
    findings = tuple(
        dataclasses.replace(finding, message=translated(finding.message)) for finding in report.findings
    )
    report = dataclasses.replace(report, findings=findings)
    looked = _LOOKED[report.depth.name] + (", from its side-car" if report.sidecar else "")
    deeper = [each.name.lower() for each in report.depths if each > report.depth]
    if deeper:
        looked += f"; --depth {deeper[-1]} looks deeper"
    state = "ok" if report.ok else "DAMAGED"
    if not report.ok:  # how far it came does not count then
        looked = "1 problem" if report.count == 1 else f"{report.count} problems"
    out.say(f"{image}: {state} ({report.format}; {looked})", fg="green" if report.ok else "red")
    for finding in report.findings[:_SHOWN]:
        place = "" if finding.offset is None else f" at {finding.offset}"
        lost = ""
        if finding.extent is not None:
            lost = f" (the volume's bytes {finding.extent.offset} to {finding.extent.end})"
        out.say(f"  {finding.structure}{place}: {finding.message}{lost}")
    if report.count > _SHOWN:
        out.say(f"  and {report.count - _SHOWN} more")
    return report
