module selfheal.dev/pause

go 1.26
