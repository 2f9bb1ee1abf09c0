"""`backhaul completion bash|zsh`: the script by which a shell completes commands, options and names.

Rule: the script calls this program for each key press; what it requests is one candidate a line.
"""

from enum import StrEnum
from typing import Annotated, Final

import typer

from control_plane.cli.session import CliSession, Tree, local_command

_BASH: Final = r"""# bash completion of backhaul: source <(backhaul completion bash)
_backhaul() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        [[ $line ]] && COMPREPLY+=("$(printf %q "$line")")
    done < <(env COMP_WORDS="$(printf '%s\n' "${COMP_WORDS[@]}")" COMP_CWORD="$COMP_CWORD" \
        _BACKHAUL_COMPLETE=complete_bash "$1" 2>/dev/null)
    # A folder goes on.
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]]; then compopt -o nospace; fi
}
complete -o default -F _backhaul backhaul
"""

_ZSH: Final = r"""#compdef backhaul
# zsh completion of backhaul: source <(backhaul completion zsh)
_backhaul() {
    local -a found folders others
    found=("${(@f)$(env COMP_WORDS="${(F)words}" COMP_CWORD=$((CURRENT - 1)) \
        _BACKHAUL_COMPLETE=complete_bash "${words[1]}" 2>/dev/null)}")
    found=("${(@)found:#}")
    if ((! $#found)); then
        _files
        return
    fi
    folders=("${(@M)found:#*/}") others=("${(@)found:#*/}")
    # A folder goes on.
    (($#folders)) && compadd -S '' -- "${folders[@]}"
    (($#others)) && compadd -- "${others[@]}"
}
if [[ ${funcstack[1]-} == _backhaul ]]; then
    _backhaul "$@"
else
    (($+functions[compdef])) || { autoload -Uz compinit && compinit; }
    compdef _backhaul backhaul
fi
"""


class Shell(StrEnum):
    """The shells that have a script."""

    BASH = "bash"
    ZSH = "zsh"


_SCRIPTS: Final = {Shell.BASH: _BASH, Shell.ZSH: _ZSH}

WhichShell = Annotated[Shell, typer.Argument(metavar="SHELL", help="bash or zsh.")]


def register(app: Tree, panel: str) -> None:
    """Add the command of this module."""
    app.command("completion", rich_help_panel=panel)(local_command(completion))


def completion(session: CliSession, shell: WhichShell) -> None:
    """Print the completion script of a shell: source <(backhaul completion bash), in ~/.bashrc or ~/.zshrc."""
    session.output.text(_SCRIPTS[shell])
