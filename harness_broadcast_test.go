package zpipes

import "time"

// castSays is what one of a broadcast's clients says.
type castSays struct {
	role role
	message
}

// castTalk is a broadcast from its first message to its last: what its writer says, and a
// reader.
var castTalk = func() []castSays {
	hi := message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities, window: stageWindow}}
	all := []castSays{
		{writer, hi},
		{reader, hi},
		{writer, message{id: msgOutput, text: []byte("p"), mode: modeBroadcast, cast: broadcastConfig{keep: 5, await: 1, patience: 5 * time.Millisecond}}},
		{writer, message{id: msgRead, flags: readHere}},
		{writer, message{id: msgWrite, chunk: []byte("onetwo"), begins: []byte{0, 3}}},
		{reader, message{id: msgInput, text: []byte("p")}},
		{reader, message{id: msgRead, flags: readHere}},
		{reader, message{id: msgRead, size: 2}},
		{writer, message{id: msgWrite, chunk: []byte("three"), begins: []byte{2, 1, 1}}},
		{reader, message{id: msgRead, flags: readAny | readStream, size: 1 << 20}},
		{writer, message{id: msgWrite, chunk: []byte("more"), begins: []byte{4}}},
		{writer, message{id: msgClose}},
		{reader, message{id: msgClose}},
	}
	for i := range all {
		if all[i].block = hasBlock; all[i].id != msgPing {
			all[i].channel = 1 + uint32(all[i].role)
		}
	}
	return all
}()
