package ifconfig

// Usage is ifconfig's usage text.
const Usage = `usage: ifconfig [-f type:format] [-g groupname] [-C] interface address_family
                [address [dest_address]] [parameters]
       ifconfig interface create
       ifconfig -a [-g groupname] [-G groupname] [-d] [-u] [-v] [address_family]
       ifconfig -l [-d] [-u] [address_family]
       ifconfig [-g groupname] [-C] [-d] [-u] [-v]
`
