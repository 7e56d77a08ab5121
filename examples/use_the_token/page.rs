use std::{env, error::Error, fs, time::Duration};

use reqwest::{Client, Response, StatusCode};

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn get_once(client: &Client, token_file: &str, url: &str) -> Result<Response, Box<dyn Error>> {
    let token = fs::read_to_string(token_file)?; // at every call
    Ok(client.get(url).bearer_auth(token.trim()).send().await?)
}

async fn get(client: &Client, token_file: &str, url: &str) -> Result<String, Box<dyn Error>> {
    let mut response = get_once(client, token_file, url).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        response = get_once(client, token_file, url).await?; // once more: this reads the file again
    }
    Ok(response.error_for_status()?.text().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let token_file = setting("TOKEN_FILE", "/var/run/secrets/vgs/access_token");
    let api_url = setting("API_URL", "https://api.example.com/v1/items");
    let client = Client::builder().timeout(Duration::from_secs(30)).build()?;
    println!("{}", get(&client, &token_file, &api_url).await?);
    Ok(())
}
