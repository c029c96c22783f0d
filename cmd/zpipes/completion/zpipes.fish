# Completion of zpipes for fish. Put into ~/.config/fish/config.fish:
#
#	zpipes completion fish | source
#
# Nothing of the line is evaluated; fish quotes what it inserts.
function __zpipes_complete
	set -l words (commandline -opc)
	set -l offers (command zpipes __complete fish $words[2..] (commandline -ct) </dev/null 2>/dev/null | string split0)
	if test "$offers[1]" = files
		__fish_complete_path (commandline -ct) | string join0
	else if set -q offers[2]
		string join0 -- $offers[2..]
	end
end
complete -c zpipes -e
complete -c zpipes -f -a '(__zpipes_complete | string split0)'
