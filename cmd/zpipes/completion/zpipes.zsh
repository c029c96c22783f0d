#compdef zpipes
# Completion of zpipes for zsh. Put into ~/.zshrc, behind compinit:
#
#	source <(zpipes completion zsh)
#
# or this file as _zpipes into a directory of $fpath. Nothing of the line is evaluated;
# zsh quotes what it inserts.
_zpipes() {
	local -a offers
	offers=("${(@0)$(command zpipes __complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" </dev/null 2>/dev/null)}")
	if [[ $offers[1] == files ]]; then
		[[ $PREFIX == (*\$[\(\{]*|*\`*) ]] || _files # which would run what is in there
	elif (( $#offers > 2 )); then
		compadd -- "${(@)offers[2,-2]}"
	fi
}
if [[ $funcstack[1] == _zpipes ]]; then
	_zpipes "$@"
elif (( $+functions[compdef] )); then
	compdef _zpipes zpipes
else
	print -u2 'zpipes: completion needs compinit before it'
fi
