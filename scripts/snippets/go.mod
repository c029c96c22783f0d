module github.com/zpipes/zpipes/scripts/snippets

go 1.25.0
