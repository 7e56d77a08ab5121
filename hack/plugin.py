#!/usr/bin/env python3
"""Packs kubectl tokensource, and describes its archives to package managers: docs/releasing.md. Runs on Linux, macOS and Windows.

  plugin.py archive BINARY FOLDER   pack a binary of this platform, and what it says of itself (completions, man pages)
  plugin.py krew SUMS               print the manifest for krew; SUMS is the SHA256SUMS of all archives
  plugin.py formula SUMS            print the formula for Homebrew
"""

import gzip
import io
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "kubectl-tokensource"
REPOSITORY = "https://github.com/tokensource/tokensource-operator"
PLATFORMS = [(system, machine) for system in ("linux", "darwin", "windows") for machine in ("amd64", "arm64")]
# Where each shell looks for a script of this name.
COMPLETIONS = {"bash": NAME + ".bash", "zsh": "_" + NAME, "fish": NAME + ".fish", "powershell": NAME + ".ps1"}


def fail(message):
    sys.exit(f"plugin.py: {message}")


def version():
    return re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)


def archive_name(system, machine):
    return f"{NAME}-v{version()}-{system}-{machine}" + (".zip" if system == "windows" else ".tar.gz")


def program(system):
    return NAME + (".exe" if system == "windows" else "")


def this_platform():
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    found = (platform.system().lower(), machine)
    if found not in PLATFORMS:
        fail(f"there is no archive for {platform.system()} {platform.machine()}")
    return found


def time_of_commit():
    """The same commit gives the same archive."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or subprocess.check_output(["git", "-C", ROOT, "log", "-1", "--format=%ct"]))


def contents(binary, system):
    """The files of the archive: path, bytes, whether it is a program. The binary prints its scripts and pages."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        plugin, man = folder / program(system), folder / "man"
        man.mkdir()
        # It goes by its name, so that scripts and pages are those of the plugin.
        shutil.copy(binary + plugin.suffix if plugin.suffix else binary, plugin)
        plugin.chmod(0o755)
        yield plugin.name, plugin.read_bytes(), True
        yield "LICENSE", (ROOT / "LICENSE").read_bytes(), False
        for shell, script in sorted(COMPLETIONS.items()):
            yield f"completions/{script}", subprocess.check_output([plugin, "completion", shell]), False
        subprocess.run([plugin, "man", man], check=True)
        for page in sorted(man.iterdir()):
            yield f"man/{page.name}", page.read_bytes(), False


def archive(binary, folder):
    system, machine = this_platform()
    path, epoch = pathlib.Path(folder) / archive_name(system, machine), time_of_commit()
    path.parent.mkdir(parents=True, exist_ok=True)
    files = list(contents(binary, system))
    if system == "windows":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data, _ in files:
                entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
                entry.compress_type = zipfile.ZIP_DEFLATED
                out.writestr(entry, data)
    else:
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, tarfile.open(
            fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT
        ) as out:
            for name, data, is_program in files:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(data), epoch, 0o755 if is_program else 0o644
                out.addfile(entry, io.BytesIO(data))
    print(path)


def sums(path):
    """URL and checksum of each platform's archive."""
    lines = pathlib.Path(path).read_text().splitlines()
    known = {name.lstrip("*"): checksum for checksum, name in (line.split(maxsplit=1) for line in lines)}
    for system, machine in PLATFORMS:
        name = archive_name(system, machine)
        if not re.fullmatch("[0-9a-f]{64}", known.get(name, "")):
            fail(f"{path} has no checksum of {name}")
        yield system, machine, f"{REPOSITORY}/releases/download/v{version()}/{name}", known[name]


def krew(path):
    print(f"""\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: tokensource
spec:
  version: v{version()}
  homepage: {REPOSITORY}
  shortDescription: Show, refresh and explain TokenSources
  description: |
    Lists TokenSources by urgency, says why one has no token and what helps,
    requests new tokens, suspends and resumes, checks the cluster, and writes a
    report without secrets for those who help.

    It is for clusters with tokensource-operator, which keeps OAuth 2.0 access
    tokens fresh in Secrets.
  caveats: |
    kubectl completes namespaces and names after

      ln -s kubectl-tokensource "${{KREW_ROOT:-$HOME/.krew}}/bin/kubectl_complete-tokensource"
  platforms:""")
    for system, machine, url, checksum in sums(path):
        print(f"""\
    - selector:
        matchLabels: {{os: {system}, arch: {machine}}}
      uri: {url}
      sha256: "{checksum}"
      bin: {program(system)}""")


def formula(path):
    of_system = {}
    for system, machine, url, checksum in sums(path):
        of_system.setdefault(system, {})[machine] = (url, checksum)
    print(f"""\
class KubectlTokensource < Formula
  desc "Shows, refreshes and explains TokenSources, as a plugin of kubectl"
  homepage "{REPOSITORY}"
  version "{version()}"
  license "Apache-2.0"
""")
    for system, block in (("darwin", "on_macos"), ("linux", "on_linux")):
        print(f"  {block} do")
        for machine, inner in (("arm64", "on_arm"), ("amd64", "on_intel")):
            url, checksum = of_system[system][machine]
            print(f'    {inner} do\n      url "{url}"\n      sha256 "{checksum}"\n    end')
        print("  end\n")
    print(f"""\
  def install
    bin.install "{NAME}"
    # kubectl asks for completions under this name.
    bin.install_symlink "{NAME}" => "kubectl_complete-tokensource"
    bash_completion.install "completions/{COMPLETIONS['bash']}" => "{NAME}"
    zsh_completion.install "completions/{COMPLETIONS['zsh']}"
    fish_completion.install "completions/{COMPLETIONS['fish']}"
    man1.install Dir["man/*.1"]
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/{NAME} --version")
  end
end""")


COMMANDS = {"archive": (archive, 2), "krew": (krew, 1), "formula": (formula, 1)}
if __name__ == "__main__":
    command, *arguments = sys.argv[1:] or [""]
    run, count = COMMANDS.get(command, (None, 0))
    if run is None or len(arguments) != count:
        sys.exit(__doc__)
    run(*arguments)
