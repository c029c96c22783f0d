# Completion of zpipes for bash. Put into ~/.bashrc:
#
#	source <(zpipes completion bash)
#
# The program reads the line, and prints what could follow as it is to be typed. Nothing
# here is evaluated.
_zpipes() {
	local kind= word
	COMPREPLY=()
	while IFS= read -r word; do
		if [[ $kind ]]; then
			COMPREPLY+=("$word")
		else
			kind=$word
		fi
	done < <(command zpipes __complete bash "${COMP_LINE:0:COMP_POINT}" "${COMP_WORDBREAKS-}" </dev/null 2>/dev/null)
	if [[ $kind == files ]]; then
		compopt -o default 2>/dev/null
	fi
}
complete -F _zpipes zpipes
