#![allow(missing_docs)]
use std::sync::Mutex;
use std::time::Instant;
use std::collections::BTreeMap;
static M: Mutex<BTreeMap<&'static str,(u64,u64)>> = Mutex::new(BTreeMap::new());
pub struct G(&'static str, Instant);
pub fn g(n:&'static str)->G{G(n,Instant::now())}
impl Drop for G{fn drop(&mut self){let e=self.1.elapsed().as_nanos() as u64;let mut m=M.lock().unwrap();let x=m.entry(self.0).or_default();x.0+=e;x.1+=1;}}
pub fn dump(who:&str){let m=M.lock().unwrap();for(k,(a,b)) in m.iter(){eprintln!("PROF {who} {k:24} {:9.1} ms {b:8} x {:9.1} us",*a as f64/1e6,*a as f64/1e3/(*b as f64));}}
